"""The campaign of damaged files, a few of them."""

from tests.campaigns import damage


def test_damaged_files_are_read_or_named(capsys):
    assert damage.run(n_saved=40, n_data=20) == 0
    printed = capsys.readouterr().out
    assert printed.count("| all |") == 2
    assert "| saved |" not in printed
