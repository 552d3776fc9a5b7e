"""The pages, one publisher each: `publish(archive)` returns the pages of its kind, ready to be rendered."""
