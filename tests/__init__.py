"""The tests of serkit, a folder for each of its own."""
