"""The page itself: contents, template, style of figures."""
