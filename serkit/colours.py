"""Colours of classes, for pictures and pages."""

COLOURS = (  # ten that differ for people who see no red or no green, too
    "#006cb4",
    "#d86000",
    "#cc78a8",
    "#e4cc00",
    "#006054",
    "#6cd86c",
    "#543000",
    "#3c189c",
    "#ccccb4",
    "#0000fc",
)
