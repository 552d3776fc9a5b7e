"""The results database and the static site that is rendered from it."""
