"""Newer versions of Starphleet: found, installed beside, tried, and let be the ship."""
