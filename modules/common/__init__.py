"""What families share: estimators on arrays, rows side by side, sequences, starts, threads."""
