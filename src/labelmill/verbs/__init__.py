"""One module per group of verbs; each registers its own on the command line."""
