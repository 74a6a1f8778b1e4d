"""Other people's folders made into a raw task."""
