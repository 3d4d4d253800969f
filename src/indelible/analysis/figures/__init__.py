"""The pictures of a study. Each module draws one kind from plain values; `drawing` is how they look and leave."""
