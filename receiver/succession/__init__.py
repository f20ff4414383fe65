"""One process of the ship after another: what passes between them, and who stays."""
