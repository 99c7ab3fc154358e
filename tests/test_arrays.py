"""Rows in memory-mapped files, Zarr and HDF5: learnt from as those in memory are, to the bit."""

import errno
import os
import tracemalloc

import h5py
import numpy as np
import pytest
import torch
import zarr
from torch import nn

from serkit import Graph, Observation, arrays
from serkit.errors import InputError, OutputError
from serkit.modules import AE, GMM, VAE, Features

N, SIDE, K = 600, 6, 3


@pytest.fixture(scope="module")
def images():
    """Images (N, SIDE, SIDE) in [0, 1] of three kinds."""
    rng = np.random.default_rng(0)
    kinds = rng.random((K, SIDE, SIDE))
    return np.clip(kinds[np.arange(N) % K] + 0.1 * rng.normal(size=(N, SIDE, SIDE)), 0, 1).astype(
        np.float32
    )


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("SERKIT_SCRATCH", str(folder))
    return folder


def npy(folder, rows):
    np.save(folder / "rows.npy", rows)
    return np.load(folder / "rows.npy", mmap_mode="r")


def memmap(folder, rows):
    mapped = np.memmap(folder / "rows", rows.dtype, "w+", shape=rows.shape)
    mapped[:] = rows
    return mapped


def hdf5(folder, rows):
    file = h5py.File(folder / "rows.h5", "w")
    return file.create_dataset("rows", data=rows, chunks=(50, *rows.shape[1:]))


def zarr_array(folder, rows):
    return zarr.create_array(folder / "rows.zarr", data=rows, chunks=(50, *rows.shape[1:]))


kinds = pytest.mark.parametrize("kind", [npy, memmap, hdf5, zarr_array])


def learnt(rows, **options):
    vae = VAE(2, epochs=2, batch_size=100, hidden_sizes=(16,), random_state=0)
    gmm = GMM(K, n_init=2, random_state=0, **options)
    graph = Graph(gmm.connect(vae.connect(Observation(rows))))
    graph.fit(2, verbose=False)
    return graph


@pytest.fixture(scope="module")
def in_memory(images):
    return learnt(images)


@kinds
def test_a_graph_learns_the_same_from_a_file(tmp_path, scratch, images, in_memory, kind):
    mapped = learnt(kind(tmp_path, images))
    assert mapped.history[-1]["updates"][-1].keys() == in_memory.history[-1]["updates"][-1].keys()
    for name in ("means_", "covariances_", "responsibilities_"):
        found, expected = (getattr(g["gmm"], name) for g in (mapped, in_memory))
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(mapped["vae"].message_up.mean, in_memory["vae"].message_up.mean)


@kinds
def test_messages_of_files_are_in_files_without_a_name(tmp_path, scratch, images, kind):
    graph = learnt(kind(tmp_path, images), use_variance=True)
    vae, gmm = graph["vae"], graph["gmm"]
    (reconstruction,), (mixture,) = vae.messages_down, gmm.messages_down
    for rows in (
        graph["observation"].data,
        vae.message_up.mean,
        vae.message_up.var,
        reconstruction.array,
        gmm.message_up.log_prob,
        mixture.log_prob,
        mixture.assigned().mean,
        mixture.expected().mean,
        gmm.responsibilities_,
    ):
        assert arrays.is_mapped(rows)
    assert os.listdir(scratch) == []


def test_messages_of_arrays_are_in_memory(in_memory):
    assert not arrays.is_mapped(in_memory["vae"].message_up.mean)
    assert not arrays.is_mapped(in_memory["gmm"].responsibilities_)


def test_other_numbers_become_float32_in_a_file(tmp_path, scratch, images):
    whole = (255 * images).astype(np.uint8)
    observation = Observation(npy(tmp_path, whole))
    assert observation.data.dtype == np.float32
    assert arrays.is_mapped(observation.data)
    np.testing.assert_array_equal(observation.data, whole)


@kinds
def test_times_in_a_file_stay_apart(tmp_path, scratch, kind):
    times = 1_700_000_000 + np.arange(3 * 2**17).reshape(-1, 3)  # of more than one block
    observation = Observation(kind(tmp_path, times))
    assert arrays.is_mapped(observation.data)
    np.testing.assert_array_equal(observation.data, times)


def test_rows_that_miss_are_neutral_and_the_file_stays_as_it_is(tmp_path, scratch, images):
    mapped = memmap(tmp_path, images)
    observed = np.arange(N) > 5
    observation = Observation(mapped, observed=observed)
    assert not observation.data[~observed].any()
    np.testing.assert_array_equal(mapped, images)


def test_several_parents_stay_in_files(tmp_path, scratch, images):
    halves = [images[:, :3], images[:, 3:]]
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
    mapped = [Observation(npy(tmp_path / str(i), half)) for i, half in enumerate(halves)]
    found = GMM(K, random_state=0).connect(*mapped).update()
    expected = GMM(K, random_state=0).connect(*map(Observation, halves)).update()
    np.testing.assert_array_equal(found.means_, expected.means_)
    assert arrays.is_mapped(found.responsibilities_)


def test_little_memory_is_used_for_mapped_rows(tmp_path, scratch):
    """Rows of 6.4 MB and results of 25.6 MB each, of which only blocks may be in memory."""
    rng = np.random.default_rng(0)
    rows = npy(tmp_path, rng.normal(size=(400_000, 4)).astype(np.float32))
    gmm = GMM(8, n_init=1, max_iter=2, random_state=0)
    gmm.connect(Observation(rows[:1000])).update()  # what is imported and cached on the way stays
    gmm.connect(Observation(rows))
    tracemalloc.start()
    try:
        gmm.update()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < gmm.responsibilities_.nbytes


@pytest.mark.parametrize("model", [AE, VAE])
def test_encode_and_decode_files(tmp_path, scratch, images, model):
    net = model(2, epochs=1, random_state=0).fit(npy(tmp_path, images))
    latents = net.encode(npy(tmp_path, images))
    assert arrays.is_mapped(latents)
    np.testing.assert_array_equal(latents, net.encode(images))
    np.testing.assert_array_equal(net.decode(latents), net.decode(np.array(latents)))


def test_copies_in_memory_are_not_mapped(tmp_path, images):
    mapped = npy(tmp_path, images)
    assert arrays.is_mapped(mapped[3:9].reshape(6, -1))
    assert not arrays.is_mapped(mapped.astype(np.float64))
    assert not arrays.is_mapped(mapped.copy())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nets_that_write_in_place_leave_the_data_alone(tmp_path, scratch, images, dtype):
    rows = (images - 0.5).astype(dtype)
    in_memory, mapped = Observation(rows), Observation(npy(tmp_path, rows))
    found = [
        Features(nn.ReLU(inplace=True)).connect(observation).update().message_up.array
        for observation in (in_memory, mapped)
    ]
    np.testing.assert_array_equal(in_memory.data, (images - 0.5).astype(dtype))
    np.testing.assert_array_equal(*found)


def test_a_full_disk_is_told(tmp_path, monkeypatch, images):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    rows = npy(tmp_path, (255 * images).astype(np.uint8))
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match="No space left on device"):
        Observation(rows)


def test_bad_rows_of_a_file_are_named(tmp_path, scratch, images):
    spoilt = images.copy()
    spoilt[[7, 500]] = np.nan
    with pytest.raises(InputError, match=r"NaN or infinity in 2 of 600 rows \(rows 7, 500\)"):
        Observation(hdf5(tmp_path, spoilt))


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch, images):
    rows = npy(tmp_path, (255 * images).astype(np.uint8))
    monkeypatch.setenv("SERKIT_SCRATCH", str(tmp_path / "nowhere"))
    with pytest.raises(OutputError, match=r"nowhere \(SERKIT_SCRATCH names another folder"):
        Observation(rows)


# -- files that are not whole ----------------------------------------------------------------------


def without_a_chunk(folder, rows):
    array = zarr_array(folder, rows)
    (folder / "rows.zarr" / "c" / "1" / "0" / "0").unlink()
    return array


def with_half_a_chunk(folder, rows):
    array = zarr_array(folder, rows)
    chunk = folder / "rows.zarr" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:99])
    return array


def never_written(folder, rows):
    file = h5py.File(folder / "rows.h5", "w")
    dataset = file.create_dataset("rows", shape=(10**9, 784), dtype="f4", chunks=(50, 784))
    dataset[:50] = 1
    return dataset


def never_written_at_all(folder, rows):
    return h5py.File(folder / "rows.h5", "w").create_dataset("rows", shape=(99, 784), dtype="f4")


def with_bits_turned(folder, rows):
    with h5py.File(folder / "rows.h5", "w") as file:
        options = {"chunks": (50, *rows.shape[1:]), "compression": "gzip"}
        place = file.create_dataset("rows", data=rows, **options).id.get_chunk_info(1).byte_offset
    content = bytearray((folder / "rows.h5").read_bytes())
    content[place : place + 50] = bytes(50)
    (folder / "rows.h5").write_bytes(content)
    return h5py.File(folder / "rows.h5")["rows"]


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (without_a_chunk, r"Observation: .*rows\.zarr holds \d+ of \d+ chunks, .* fill value"),
        (with_half_a_chunk, r"rows\.zarr cannot be read: "),
        (never_written, r"Observation: .*rows\.h5 holds 1 of 20000000 chunks, .* fill value"),
        (never_written_at_all, r"Observation: .*rows\.h5 holds 0 of 1 chunks"),
        (with_bits_turned, r"rows\.h5 cannot be read: "),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_files_that_are_not_whole_are_named(tmp_path, scratch, images, damage, text):
    with pytest.raises(InputError, match=text):
        Observation(damage(tmp_path, images))


@pytest.mark.parametrize("view", [lambda x: x[::-1], lambda x: x[::-2][:1], lambda x: x[:, ::-1]])
def test_mirrored_rows_have_no_negative_strides_which_torch_refuses(view):
    rows = view(np.arange(12, dtype=np.float32).reshape(4, 3))
    again = arrays.as_rows(rows, "rows")
    assert min(again.strides) > 0
    np.testing.assert_array_equal(torch.tensor(again), rows)
