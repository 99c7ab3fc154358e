"""What a picture shows."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def drawn(figure):
    """Renders it, which finds what building alone does not."""
    assert isinstance(figure, Figure)
    FigureCanvasAgg(figure).draw()  # the canvas a figure is born with draws nothing
    return figure


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def titles(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]
