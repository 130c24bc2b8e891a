"""The console: an API, pages and a live feed for people. A process of its own."""
