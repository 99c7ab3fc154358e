"""What several families of modules use: rows side by side, starts of clusters, threads."""
