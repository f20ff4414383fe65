"""How source becomes something that runs: the provided packs and the Heroku buildpack protocol."""
