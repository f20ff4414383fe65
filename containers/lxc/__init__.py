"""The LXC runtime: unprivileged containers on overlays of a base, in the ship's own network."""
