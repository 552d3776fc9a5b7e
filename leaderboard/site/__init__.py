"""The static site: pages, charts, downloads and the feed, all from the results database."""
