"""Either end of the range of versions that serkit installs into; tried by hand."""
