"""The Ruby pack, with the gems that Debian packages."""

from __future__ import annotations

import uuid

from tests.buildpacks.place import Sandbox
from tests.buildpacks.scene import Scene


class RubyApps(Scene):
    async def test_rack(self) -> None:
        """A Rack app whose gems the ship has is run by rackup under WEBrick, nothing fetched."""
        place = self.place("ruby/rack")
        built = await self.built(place)
        self.assertIn("Using the ship's own gems", self.log.text)
        self.assertIn("rack at sea", await self.started(place, built).get())

    async def test_rack_in_a_sandbox(self) -> None:
        """The same holds behind bubblewrap."""
        place = self.place("ruby/rack", kind=Sandbox)
        built = await self.built(place)
        self.assertIn("rack at sea", await self.started(place, built).get())

    async def test_no_gemfile(self) -> None:
        """config.ru alone is run with the ship's rack."""
        place = self.place("ruby/rackless")
        built = await self.built(place)
        self.assertIn("rack at sea", await self.started(place, built).get())

    async def test_rails_defaults(self) -> None:
        """An app whose lock has rails gets Rails' server, and one secret for all its deploys."""
        secrets = set()
        for name in ("one", "two"):
            place = self.place(name=name)
            gem = place.files / "vendor/rails"
            gem.mkdir(parents=True)
            (gem / "rails.gemspec").write_text(
                "Gem::Specification.new { |s| s.name = 'rails'; s.version = '7.0.0'; "
                "s.summary = s.author = 'x'; s.files = [] }"
            )
            (place.files / "Gemfile").write_text("gem 'rails', path: 'vendor/rails'\n")
            built = await self.built(place)
            self.assertEqual(
                built.process_types["web"], "bin/rails server -b 0.0.0.0 -p $PORT -e $RAILS_ENV"
            )
            self.assertEqual(built.config_vars["RAILS_ENV"], "production")
            secrets.add(built.config_vars["SECRET_KEY_BASE"])
        self.assertEqual([len(secret) for secret in secrets], [128])


class RubyRefusals(Scene):
    async def test_ruby_version(self) -> None:
        """A ruby that the ship has not is refused, with what it has; one that it has is not."""
        for line in ('ruby "1.9.3"', "ruby '~> 1.9', '< 1.10'", 'ruby("1.9.3")'):
            place = self.place("ruby/rack", name=uuid.uuid4().hex)
            gemfile = place.files / "Gemfile"
            gemfile.write_text(f"{line}\n{gemfile.read_text()}")
            self.assertIn("the Gemfile asks for ruby", await self.refusal(place), line)
        place = self.place("ruby/rack")
        gemfile = place.files / "Gemfile"
        gemfile.write_text(f"ruby '>= 2.0'\n{gemfile.read_text()}")
        await self.built(place)

    async def test_failing_install(self) -> None:
        """A failing bundler fails the build by name and status, its own words before that."""
        place = self.place()
        (place.files / "Gemfile").write_text("gem 'no-such-gem-anywhere'\n")
        said = await self.refusal(place)
        self.assertRegex(said, r"^ruby: bundler could not install the Gemfile \(exit \d+\)$")
        self.assertIn("no-such-gem-anywhere", self.log.text)
