"""How large an input may be. Beyond this a text is refused before anything is made of it."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 100
