"""What `starphleet COMMAND --help` and the manual page say beyond one line for each command."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill

from attrs import frozen

from receiver.config import Config

Command = Callable[[str, Callable[[argparse.Namespace, Config], int], str], argparse.ArgumentParser]
"""Adds a command: its name, what runs it, and a line about it."""

WIDTH = 96  # characters of a line

DAILY, SERVICES, SHIP, HOST = "Every day", "Services", "The ship", "The host"
CLOUD = "In the cloud"
GROUPS = (DAILY, SERVICES, SHIP, HOST, CLOUD)

ABOUT = """\
A git-push deploy server for your own hosts. A ship is a host:

  starphleet up                     start the ship on this machine
  starphleet key add NAME FILE.pub  let somebody push
  git push ship master              build, check and serve what is committed
  starphleet new headquarters DIR   a repository that says what ships run; push it to
                                    git@SHIP:headquarters, or starphleet headquarters URL
"""
MORE = """\
Each command is there as `starphleet-COMMAND` too: starphleet-status and so on.
`starphleet help COMMAND` tells more of one. What succeeds exits with 0, what was refused or failed
with 1 and one line on stderr, wrong words with 2, and Ctrl-C with 130."""
SETTINGS = """\
Settings are environment variables, or NAME=value lines in the file `settings` in the ship's root:
  STARPHLEET_ROOT         where everything is kept (/var/starphleet for root)
  STARPHLEET_HOST         the name people reach the ship by (localhost)
  STARPHLEET_BIND         the address to listen on (loopback while the host is localhost, else all)
  STARPHLEET_SSH_PORT     2222
  STARPHLEET_HTTP_PORT    8080       STARPHLEET_HTTPS_PORT   8443, 0 for none
  STARPHLEET_ACME         an e-mail address: certificates by Let's Encrypt
  STARPHLEET_TEST_DOMAIN  a domain whose every sub-domain leads here
  STARPHLEET_TEST_TTL     how long a pushed service lives (24h)
  STARPHLEET_HEADQUARTERS where the headquarters is, until `headquarters` says otherwise
  STARPHLEET_PRIVATE_KEY  the key that the git hosts of the headquarters know
docs/settings.md has all of them."""


@frozen
class Page:
    """One command. `more` says what is printed, and what exits with something else than usual."""

    group: str
    more: str
    examples: Sequence[str] = ()

    def told(self, about: str) -> str:
        """A sentence of what it is `about`, and the rest."""
        return f"{about[0].upper()}{about[1:]}.\n{fill(self.more, WIDTH)}"

    @property
    def epilog(self) -> str:
        """What stands below the options."""
        shown = "\n".join(f"  {one}" for one in self.examples)
        return f"examples:\n{shown}" if shown else ""


PAGES: Mapping[str, Page] = {
    "status": Page(
        DAILY,
        "Prints where the ship is, its headquarters, a line for each service with commit, "
        "owner and URL, what is being deployed or waits, and after `!` what is not as it "
        "should be. Exits with 1 when no ship answers.",
        (
            "starphleet status",
            "starphleet status --trouble",
            "starphleet status /shop --json",
        ),
    ),
    "history": Page(
        DAILY,
        "Prints a line for each deploy, the newest first, 1000 at most: when, which commit, "
        "whose, why, how long it took and how it ended.",
        (
            "starphleet history",
            "starphleet history blog --json | jq '.[0].outcome'",
        ),
    ),
    "logs": Page(
        DAILY,
        "Prints the newest lines, and with -f goes on until Ctrl-C.",
        (
            "starphleet logs blog",
            "starphleet logs blog -f -n 20",
            "starphleet logs",
        ),
    ),
    "open": Page(
        DAILY,
        "Prints a URL, alone on its line. For the dashboard, and for a private service, it has a "
        "link in it that lets one browser in, once, within two minutes.",
        (
            "starphleet open dashboard",
            "ssh git@ship open blog",
        ),
    ),
    "run": Page(
        SERVICES,
        "The command has the environment, the files and the limits of what serves, and its "
        "own process: the service goes on beside it. Standard input and output are passed "
        "through, with a terminal if this is one; signals too. Exits with the command's own "
        "status, 128 and the signal's number if one ended it.",
        (
            "starphleet run blog -- bundle exec rake db:migrate",
            "starphleet run blog python manage.py shell",
            "starphleet run blog -- sh -c 'tar c data' >data.tar",
        ),
    ),
    "attach": Page(
        SERVICES,
        "Without a command it is a shell. A part of a name will do: where several match, or none "
        "is given, a terminal is asked which one. In LXC it joins the service's container; else "
        "it sees the same files, and not the service's processes. Exits with the status of the "
        "command.",
        (
            "starphleet attach blog",
            "starphleet attach blog ps aux",
        ),
    ),
    "cancel": Page(
        SERVICES,
        "Takes the id that `status` shows, or the name of the service. What served before "
        "goes on serving, and whoever pushed is told. Pushers may cancel their own deploys, "
        "captains and admirals all.",
        (
            "starphleet cancel 3fa2",
            "ssh git@ship cancel 3fa2",
        ),
    ),
    "healthcheck": Page(
        SERVICES,
        "Asks what the service's orders say (HEALTHCHECK, else /), as the deploy did. Prints "
        "what it answered; exits with 1 if that is not well.",
        ("starphleet healthcheck /shop && echo well",),
    ),
    "redeploy": Page(
        SERVICES,
        "Of an ordered service. Streams the build, and exits with 1 if it fails. The service is "
        "away meanwhile: `retry-deploy` builds it without that.",
        ("starphleet redeploy shop",),
    ),
    "retry-deploy": Page(
        SERVICES,
        "Of an ordered service. Streams the build, and exits with 1 if it fails; what served "
        "before serves then.",
        ("starphleet retry-deploy shop",),
    ),
    "stop": Page(
        SERVICES,
        "Its route answers 503, and a new start of the ship leaves it so.",
        ("starphleet stop blog",),
    ),
    "start": Page(
        SERVICES,
        "What changed meanwhile is deployed then.",
        ("starphleet start blog",),
    ),
    "restart": Page(
        SERVICES,
        "From its container, nothing is built. Requests wait until it listens, 30 s at most; those "
        "that are open have 2 s, and then what its own SIGTERM gives them.",
        ("starphleet restart blog",),
    ),
    "take-down": Page(
        SERVICES,
        "What was pushed expires by itself (`-o ttl=2h`); this ends it now. The same commit can be "
        "pushed again then. Ordered services go with their orders.",
        ("starphleet take-down blog--feature", "ssh git@ship take-down blog--feature"),
    ),
    "orphan-reaper": Page(
        SERVICES,
        "Prints what is gone. An orphan has no route any more, only its container.",
    ),
    "lxc-backup": Page(
        SERVICES,
        "All files that the container sees, data that services share aside.",
        ("starphleet lxc-backup blog blog.tgz",),
    ),
    "lxc-restore": Page(
        SERVICES,
        "Services that name it in STARPHLEET_BASE stand on it then.",
        ("starphleet lxc-restore golden blog.tgz",),
    ),
    "headquarters": Page(
        SHIP,
        "A URL is read before it is taken: what cannot be reached is refused, and the old one "
        "stays.",
        (
            "starphleet headquarters",
            "starphleet headquarters https://git.example.com/fleet.git#main",
        ),
    ),
    "key": Page(
        SHIP,
        "Prints `NAME FINGERPRINT RANK` of each key that lets somebody in. They take effect "
        "at once.",
        (
            "starphleet key add ann ~/ann.pub --rank captain",
            "starphleet key remove ann",
        ),
    ),
    "poll": Page(
        SHIP,
        "Returns when everything was asked; what moved is deployed then.",
    ),
    "new": Page(
        SHIP,
        "Prints what to do next.",
        ("starphleet new headquarters fleet",),
    ),
    "dns-offline": Page(
        SHIP,
        "For a load balancer that asks there; services go on serving.",
    ),
    "dns-online": Page(
        SHIP,
        "It undoes dns-offline.",
    ),
    "hup-nginx": Page(
        SHIP,
        "It does what the ship does by itself whenever routes change.",
    ),
    "restart-nginx": Page(
        SHIP,
        "For what `hup-nginx` does not help.",
    ),
    "git": Page(
        SHIP,
        "Exits with git's own status.",
        ("starphleet git ls-remote git@git.example.com:fleet.git",),
    ),
    "up": Page(
        HOST,
        "Prints how to reach the ship. Exits with 1 and the reason if it ends at once.",
    ),
    "down": Page(
        HOST,
        "Waits until all of it has ended.",
    ),
    "reload": Page(
        HOST,
        "After new settings, for example.",
    ),
    "update": Page(
        HOST,
        "Finds the newest commit of STARPHLEET_REMOTE, installs it beside, tries it, and lets it "
        "be the ship: services, builds and sessions go on. What cannot be the ship changes "
        "nothing. Prints each step with its time, on standard error with --json. Exits with 0 also "
        "when it is the newest already.",
        (
            "starphleet update",
            "starphleet update --json | jq -r .commit",
            "ssh update@ship",
        ),
    ),
    "ship": Page(
        HOST,
        "For systemd and the like; the log goes to standard output.",
    ),
    "install": Page(
        HOST,
        "Packages, the account admiral, a version of Starphleet in /opt/starphleet, settings in "
        "/etc/starphleet, data in /var/starphleet, and a unit of systemd that starts it at boot. "
        "Prints what it does, and does nothing where all is so already. What was said once need "
        "not be said again.",
        (
            "sudo starphleet install --dry-run",
            "sudo starphleet install --key ann.pub --headquarters https://example.com/headquarters",
        ),
    ),
    "uninstall": Page(
        HOST,
        "Leaves the host as it was, but for packages; what the ship keeps stays, unless --purge.",
        ("sudo starphleet uninstall",),
    ),
    "demo": Page(
        HOST,
        "Prints each step, and the URL in the end.",
    ),
    "completion": Page(
        HOST,
        "Prints a script for that shell. It asks the ship for the names of services.",
        (
            'eval "$(starphleet completion bash)"',
            "starphleet completion zsh >~/.zfunc/_starphleet",
            "starphleet completion fish >~/.config/fish/completions/starphleet.fish",
        ),
    ),
    "man": Page(
        HOST,
        "Prints it as roff.",
        ("starphleet man | man -l -",),
    ),
    "init": Page(
        CLOUD,
        "In each of four regions: a security group for ships, with ports 22, 80 and 443 open to "
        "anybody. Prints what it made or found; once more changes nothing. What these five "
        "commands go by is in the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
        "STARPHLEET_HEADQUARTERS.",
        ("starphleet init ec2",),
    ),
    "add": Page(
        CLOUD,
        "Starts an instance of Debian, which makes a ship of itself: of STARPHLEET_REMOTE, with "
        "STARPHLEET_HEADQUARTERS, its STARPHLEET_PRIVATE_KEY, and STARPHLEET_PUBLIC_KEY as the "
        "first admiral's. EC2_INSTANCE_SIZE says which kind of instance. What `init` makes is made "
        "where it lacks. AWS charges for it from then on.",
        (
            "starphleet add ship ec2 us-west-1",
            "EC2_INSTANCE_SIZE=t4g.xlarge starphleet add ship ec2 eu-central-1",
        ),
    ),
    "info": Page(
        CLOUD,
        "Prints a list in YAML, of the ships of all headquarters. A region that does not answer is "
        "named on stderr, and the exit status is 1 then.",
        (
            "starphleet info ec2",
            "starphleet info ec2 --json | jq -r '.[].AdmiralSSH'",
        ),
    ),
    "remove": Page(
        CLOUD,
        "Asks first, on a terminal; else it wants --yes. An instance that has not the tags of a "
        "ship is refused.",
        ("starphleet remove ship ec2 us-west-1 i-0123456789abcdef0",),
    ),
    "name": Page(
        CLOUD,
        "Lets HOSTNAME.DOMAIN lead to these addresses and to no others, for 300 seconds. It is for "
        "scripts in `shipscripts/` of the headquarters, which run when a ship's address changes.",
        ("starphleet name ship ec2 Z0123456789 ships.example.com 198.51.100.7",),
    ),
}
NO_PAGE = Page(SHIP, "")


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands below a parser by their names; none if it has none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}
