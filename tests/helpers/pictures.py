"""What a picture shows."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def drawn(figure):
    """Renders it, which finds what building alone does not."""
    assert isinstance(figure, Figure)
    FigureCanvasAgg(figure).draw()  # the canvas a figure is born with draws nothing
    return figure


SAVEFIG = Figure.savefig


def save_plainly(figure, *arguments, **options):
    """Render all of a picture into few dots, without a layout, in half of the time.

    Layouts are what `drawn` makes, and whole pictures what the guide's pages save.
    """
    figure.set_layout_engine("none")
    SAVEFIG(figure, *arguments, **{**options, "dpi": 30})


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def titles(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]
