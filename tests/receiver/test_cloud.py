"""`starphleet` and EC2, as AWS's own library sees it, with an AWS of the tests' own."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hooks.errors import Refused
from receiver.cloud import aws, group, names
from tests.receiver.cloud_scene import BIN, HEADQUARTERS, KEYS, Amazon, amazon

REMOTE = "https://example.com/starphleet.git#v1"
NAME = "starphleet-672108e7"  # of HEADQUARTERS
WEST = "us-west-1"


class Workstation:
    """One that has keys, and an AWS."""

    def __init__(self, there: Amazon) -> None:
        self.aws, self.home = there, there.home
        for name, kind in (("ann", "ed25519"), ("bob", "rsa"), ("eve", "ecdsa")):
            make = ["ssh-keygen", "-q", "-N", "", "-C", f"{name}@x", "-t", kind]
            subprocess.run([*make, "-f", self.home / name], check=True)
        self.private = (self.home / "ann").read_text()
        self.public = (self.home / "ann.pub").read_text()

    def env(self, **more: str) -> dict[str, str]:
        keys = {"PUBLIC": self.home / "ann.pub", "PRIVATE": self.home / "ann"}
        paths = {f"STARPHLEET_{kind}_KEY": str(path) for kind, path in keys.items()}
        return self.aws.env(**{**paths, "STARPHLEET_REMOTE": REMOTE, **more})

    def do(self, words: str, **more: str) -> tuple[int, str, str]:
        """Status and outputs of a command, which says nothing secret."""
        status, out, err = self.aws.starphleet(*words.split(), env=self.env(**more))
        for secret in (KEYS["AWS_SECRET_ACCESS_KEY"], self.private.splitlines()[3], "hunter2"):
            assert secret not in out + err
        return status, out, err

    def ec2(self, region: str = WEST) -> Any:
        return self.aws.client("ec2", region)

    def instances(self, region: str = WEST) -> list[dict[str, Any]]:
        told = self.ec2(region).describe_instances()["Reservations"]
        return [one for each in told for one in each["Instances"]]

    def state(self, instance: str) -> str:
        (found,) = (one for one in self.instances() if one["InstanceId"] == instance)
        return str(found["State"]["Name"])

    def add(self, region: str = WEST, **more: str) -> dict[str, Any]:
        """One more ship, as AWS describes it."""
        before = {one["InstanceId"] for one in self.instances(region)}
        status, said, trouble = self.do(f"add ship ec2 {region}", **more)
        assert (status, trouble) == (0, ""), trouble
        (new,) = (one for one in self.instances(region) if one["InstanceId"] not in before)
        assert new["InstanceId"] in said
        return new

    def info(self) -> list[dict[str, str]]:
        status, out, _ = self.do("info ec2 --json")
        assert status == 0
        found: list[dict[str, str]] = json.loads(out)
        return found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workstation]:
    with amazon(tmp_path_factory.mktemp("cloud")) as there:
        yield Workstation(there)


def test_init(here: Workstation) -> None:
    """Each of the four zones gets the group with its three ports open; once more it is found, and
    what somebody closed is opened."""
    status, out, err = here.aws.alone("init", "ec2", env=here.env())
    assert (status, err) == (0, "")
    assert sorted(line.partition(":")[0] for line in out.splitlines()) == sorted(aws.ZONES)
    assert out.count("made security group starphleet sg-") == len(aws.ZONES)
    for zone in aws.ZONES:
        (found,) = here.ec2(zone).describe_security_groups(GroupNames=["starphleet"])[
            "SecurityGroups"
        ]
        assert group.lacking(found["IpPermissions"]) == []
        assert sum(len(one["IpRanges"]) for one in found["IpPermissions"]) == 3
    https = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443}
    every = {"Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    here.ec2().revoke_security_group_ingress(
        GroupId=_group(here), IpPermissions=[{**https, **every}]
    )
    status, out, err = here.do("init ec2")
    assert (status, err) == (0, "")
    assert out.count("is there, and opens 22, 80, 443") == len(aws.ZONES) - 1
    assert f"us-west-1: security group starphleet {_group(here)} opened 443 too" in out


def _group(here: Workstation, region: str = WEST) -> str:
    found = here.ec2(region).describe_security_groups(GroupNames=["starphleet"])
    return str(found["SecurityGroups"][0]["GroupId"])


def test_a_ship(here: Workstation) -> None:
    """Where `init` never was: the newest image of Debian's own, an encrypted disk, metadata by a
    token that gets no further, tags, the key pair; and its user data has both keys."""
    one = here.add("eu-central-1")
    ec2 = here.ec2("eu-central-1")
    (image,) = ec2.describe_images(ImageIds=[one["ImageId"]])["Images"]
    assert image["Name"] == "debian-12-amd64-20261101-2100"
    assert (one["InstanceType"], one["KeyName"]) == ("t3.large", NAME)
    assert [each["GroupId"] for each in one["SecurityGroups"]] == [_group(here, "eu-central-1")]
    tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
    assert tags == {"Name": "Starphleet", "Headquarters": HEADQUARTERS}
    options = one["MetadataOptions"]
    assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)
    volume = one["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    (disk,) = ec2.describe_volumes(VolumeIds=[volume])["Volumes"]
    assert (disk["Size"], disk["VolumeType"], disk["Encrypted"]) == (64, "gp3", True)
    (pair,) = ec2.describe_key_pairs(KeyNames=[NAME], IncludePublicKey=True)["KeyPairs"]
    assert pair["PublicKey"].split()[:2] == here.public.split()[:2]
    told = yaml.safe_load(_user_data(here, one, "eu-central-1"))
    files = {file["path"]: file for file in told["write_files"]}
    assert files["/root/starphleet/private/ann"]["content"] == here.private
    assert files["/root/starphleet/public/ann.pub"]["content"] == here.public
    assert {file["permissions"] for path, file in files.items() if "/etc/" not in path} == {"0600"}


def _user_data(here: Workstation, one: dict[str, Any], region: str = WEST) -> str:
    asked = here.ec2(region).describe_instance_attribute(
        InstanceId=one["InstanceId"], Attribute="userData"
    )
    return base64.b64decode(asked["UserData"]["Value"]).decode()


def test_kinds_of_instances(here: Workstation) -> None:
    """EC2_INSTANCE_SIZE says which; the image is for its processors. What is none is one line."""
    one = here.add(EC2_INSTANCE_SIZE="t4g.small")
    (image,) = here.ec2().describe_images(ImageIds=[one["ImageId"]])["Images"]
    assert (one["InstanceType"], image["Name"]) == ("t4g.small", "debian-12-arm64-20261101-2100")
    status, out, err = here.do("add ship ec2 us-west-1", EC2_INSTANCE_SIZE="t99.huge")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "t99.huge" in err


def test_another_network(here: Workstation) -> None:
    """`--vpc SUBNET` is where the ship is, with a group of that network's."""
    ec2 = here.ec2()
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    status, out, err = here.do(f"add ship ec2 us-west-1 --vpc {subnet}")
    assert (status, err) == (0, "")
    assert "made security group" in out
    (one,) = (each for each in here.instances() if each.get("SubnetId") == subnet)
    assert one["VpcId"] == vpc
    status, out, err = here.do("add ship ec2 us-west-1 --vpc subnet-00000000")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "subnet-00000000" in err


def test_no_network(here: Workstation) -> None:
    """A region without a default network is named, with what helps; nothing is made there."""
    ec2 = here.ec2("eu-north-1")
    for vpc in ec2.describe_vpcs()["Vpcs"]:
        for subnet in ec2.describe_subnets()["Subnets"]:
            ec2.delete_subnet(SubnetId=subnet["SubnetId"])
        ec2.delete_vpc(VpcId=vpc["VpcId"])
    status, out, err = here.do("add ship ec2 eu-north-1")
    assert (status, out) == (1, "")
    assert err == (
        "starphleet: eu-north-1: there is no default VPC; starphleet add ship ec2 eu-north-1 "
        "--vpc SUBNET takes another one\n"
    )


def test_a_region_that_is_none(here: Workstation) -> None:
    """One line names those that there are, whatever was said; nothing is asked of it."""
    for wrong in ("us-west-9\x1b[31m", "a.example.com/"):
        status, out, err = here.aws.alone("add", "ship", "ec2", wrong, env=here.env())
        assert (status, out, len(err.splitlines())) == (1, "", 1)
        assert "is no region of EC2; there are af-south-1, " in err
        assert "\x1b" not in err
    assert {"us-west-9", "a.example.com/"}.isdisjoint(region for region, _ in here.aws.asked)


def test_whose_key_it_is(here: Workstation) -> None:
    """A key pair of that name with another key is refused before anything is started; the same key
    with another comment is not another."""
    here.add()
    before = len(here.instances())
    bob = str(here.home / "bob.pub")
    status, _, err = here.do("add ship ec2 us-west-1", STARPHLEET_PUBLIC_KEY=bob)
    assert status == 1
    assert f"key pair {NAME} has another key than STARPHLEET_PUBLIC_KEY" in err
    assert len(here.instances()) == before
    renamed = here.home / "ann@elsewhere.pub"
    renamed.write_text(here.public.replace("ann@x", "a laptop"))
    here.add(STARPHLEET_PUBLIC_KEY=str(renamed))


def test_info(here: Workstation) -> None:
    """All ships of all regions as YAML, those of other headquarters too, others' instances not."""
    other = here.add("ap-southeast-1", STARPHLEET_HEADQUARTERS="https://example.com/other")
    ec2 = here.ec2("ap-southeast-1")
    image = other["ImageId"]
    ec2.run_instances(ImageId=image, InstanceType="t3.large", MinCount=1, MaxCount=1)
    status, out, err = here.do("info ec2")
    assert (status, err) == (0, "")
    (one,) = (each for each in yaml.safe_load(out) if each["Region"] == "ap-southeast-1")
    host = other["PublicDnsName"]
    assert one == {
        "Headquarters": "https://example.com/other",
        "Region": "ap-southeast-1",
        "InstanceType": "t3.large",
        "InstanceId": other["InstanceId"],
        "State": "running",
        "PublicDnsName": host,
        "Diagnostic": f"http://{host}/starphleet/status",
        "AdmiralSSH": f"ssh admiral@{host}",
    }
    asked = {region for region, action in here.aws.asked if action == "DescribeInstances"}
    assert {"af-south-1", "sa-east-1", "us-east-2"} <= asked


def test_a_region_that_fails(here: Workstation) -> None:
    """It is said on stderr, in one line, and the others are shown; the status is 1."""
    known = here.info()
    here.aws.refused.add("us-east-2")
    try:
        status, out, err = here.do("info ec2 --json")
    finally:
        here.aws.refused.clear()
    assert (status, json.loads(out)) == (1, known)
    assert err == (
        "starphleet: us-east-2: You are not authorized here. So it is. (UnauthorizedOperation)\n"
    )


def test_remove(here: Workstation) -> None:
    """A ship is terminated when somebody says so, and is in no list then; what is not a ship, is
    gone or was never there is refused."""
    one = here.add()["InstanceId"]
    status, _, err = here.do(f"remove ship ec2 us-west-1 {one}")
    assert (status, err) == (
        1,
        f"starphleet: {one} would be gone with all that it keeps: say --yes\n",
    )
    assert here.state(one) == "running"
    yes = f"remove ship ec2 us-west-1 {one} --yes"
    assert here.do(yes) == (0, f"us-west-1: {one} is being terminated\n", "")
    assert here.state(one) == "terminated"
    assert one not in [each["InstanceId"] for each in here.info()]
    assert here.do(yes)[::2] == (1, f"starphleet: {one} is gone already\n")
    image = here.add("eu-central-1")["ImageId"]
    (others,) = here.ec2("eu-central-1").run_instances(
        ImageId=image, InstanceType="t3.large", MinCount=1, MaxCount=1
    )["Instances"]
    for region, wrong in (
        ("eu-central-1", others["InstanceId"]), (WEST, "i-0123456789abcdef0"), (WEST, "all"),
    ):  # fmt: skip
        status, out, err = here.do(f"remove ship ec2 {region} {wrong} --yes")
        assert (status, out, len(err.splitlines())) == (1, "", 1), err
        assert wrong in err
    (still,) = here.ec2("eu-central-1").describe_instances(InstanceIds=[others["InstanceId"]])[
        "Reservations"
    ]
    assert still["Instances"][0]["State"]["Name"] == "running"


def test_removing_on_a_terminal(here: Workstation) -> None:
    """Somebody is asked, and only yes is yes, Ctrl-D too is no; what went wrong is red there."""
    one = here.add()["InstanceId"]
    words = ["remove", "ship", "ec2", WEST, one]
    said = _on_a_terminal(here, words, "n\n")
    assert f"Terminate {one} (running, {HEADQUARTERS}), with all" in said
    assert f"{one} stays" in said
    ended = _on_a_terminal(here, words, "\x04")
    assert f"{one} stays" in ended
    assert "Traceback" not in ended
    assert here.state(one) == "running"
    _on_a_terminal(here, words, "y\n")
    assert here.state(one) == "terminated"
    gone = _on_a_terminal(here, [*words[:4], "i-0123456789abcdef0"], "")
    assert "starphleet: \x1b[31mus-west-1: " in gone
    assert gone.rstrip().endswith("(InvalidInstanceID.NotFound)\x1b[0m")


def _on_a_terminal(here: Workstation, words: list[str], typed: str) -> str:
    """What a command says that somebody answers."""
    env = here.env(TERM="xterm")
    pid, fd = os.forkpty()
    if pid == 0:
        os.execvpe(BIN / "starphleet", ["starphleet", *words], env)
    seen, end = "", time.monotonic() + 60
    try:
        while select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
            seen += os.read(fd, 4096).decode()
            if typed and "[y/N] " in seen:
                os.write(fd, typed.encode())
                typed = ""
    except OSError:  # it has ended
        pass
    finally:
        os.close(fd)
        os.waitpid(pid, 0)
    return seen


def test_a_name(here: Workstation) -> None:
    """HOSTNAME.DOMAIN leads to the addresses that were said last, of both protocols."""
    route53 = here.aws.client("route53", "us-east-1")
    zone = route53.create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"]
    own = f"{socket.gethostname().partition('.')[0]}.example.com".lower()
    bare = zone.removeprefix("/hostedzone/")
    words = f"name ship ec2 {bare} example.com 198.51.100.7"
    assert here.do(words) == (0, f"{own} A 198.51.100.7\n", "")
    status, out, err = here.do(f"{words[:-1]}8 198.51.100.9 2001:db8:0::1 2001:db8::1")
    assert (status, err) == (0, "")
    assert out == f"{own} A 198.51.100.8 198.51.100.9\n{own} AAAA 2001:db8::1\n"
    records = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    found = {
        one["Type"]: (one["TTL"], [each["Value"] for each in one["ResourceRecords"]])
        for one in records
        if one["Name"] == f"{own}."
    }
    assert found == {
        "A": (300, ["198.51.100.8", "198.51.100.9"]),
        "AAAA": (300, ["2001:db8::1"]),
    }
    for wrong in (f"{bare} example.com 198.51.100.300", f"{bare} ex_$ 1.1.1.1", "../x a.b 1.1.1.1"):
        status, out, err = here.do(f"name ship ec2 {wrong}")
        assert (status, out, len(err.splitlines())) == (1, "", 1)


def test_what_is_needed(here: Workstation) -> None:
    """A variable that is missing is named, in one line, and the status is 1."""
    no_keys, ship = dict.fromkeys(KEYS, ""), "add ship ec2 us-west-1"
    aws_key = "AWS_ACCESS_KEY_ID needs to be in your environment, with AWS_SECRET_ACCESS_KEY, or"
    for words, lacking, line in (
        ("info ec2", no_keys, aws_key),
        ("init ec2", no_keys, aws_key),
        ("info ec2", {"AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY"),
        ("init ec2", {"STARPHLEET_HEADQUARTERS": ""}, "STARPHLEET_HEADQUARTERS"),
        (ship, {"STARPHLEET_HEADQUARTERS": ""}, "STARPHLEET_HEADQUARTERS"),
        (ship, {"STARPHLEET_PUBLIC_KEY": ""}, "STARPHLEET_PUBLIC_KEY"),
    ):
        status, out, err = here.do(words, **lacking)
        assert (status, out, len(err.splitlines())) == (1, "", 1), err
        assert err.startswith(f"starphleet: {line}"), err
        assert "needs to be in your environment" in err


def test_what_is_not_right(here: Workstation) -> None:
    """Keys, URLs and remotes that could not work are refused before AWS is asked for anything,
    and nothing of a key or a password is said."""
    locked, file = here.home / "locked", here.home / "some.pub"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)]
    subprocess.run(make, check=True)
    file.write_text(here.private)
    before = len(here.aws.asked)
    for name, value, said in (
        ("STARPHLEET_PUBLIC_KEY", str(here.home / "eve.pub"), "EC2 takes keys of ssh-ed25519 and"),
        ("STARPHLEET_PUBLIC_KEY", str(file), "one public key"),
        ("STARPHLEET_PUBLIC_KEY", str(here.home / "none.pub"), "No such file"),
        ("STARPHLEET_PRIVATE_KEY", str(locked), "opens without a passphrase"),
        ("STARPHLEET_PRIVATE_KEY", str(here.home / "ann.pub"), "opens without a passphrase"),
        ("STARPHLEET_HEADQUARTERS", "https://ann:hunter2@example.com/hq", "would end up in logs"),
        ("STARPHLEET_HEADQUARTERS", "/srv/headquarters", "is not followed"),
        ("STARPHLEET_REMOTE", "file:///srv/starphleet", "is not followed"),
        ("STARPHLEET_REMOTE", "https://example.com/x#--upload-pack=x", "is not a branch"),
    ):
        status, out, err = here.do("add ship ec2 us-west-1", **{name: value})
        assert (status, out, len(err.splitlines())) == (1, "", 1), err
        assert err.startswith(f"starphleet: {name}"), err
        assert said in err
    assert len(here.aws.asked) == before


def test_without_a_private_key(here: Workstation) -> None:
    """It is a warning alone; but a Starphleet that only a key reaches is refused."""
    status, out, err = here.do("add ship ec2 us-west-1", STARPHLEET_PRIVATE_KEY="")
    assert status == 0
    assert err.startswith("starphleet: warning: STARPHLEET_PRIVATE_KEY is not in your environment")
    status, out, err = here.do(
        "add ship ec2 us-west-1", STARPHLEET_PRIVATE_KEY="", STARPHLEET_REMOTE="git@a.example:b"
    )
    assert (status, out, len(err.splitlines())) == (1, "", 1)


def test_ctrl_c(here: Workstation) -> None:
    """It ends at once, without a word, also while regions are waited for."""
    here.aws.silent |= {"eu-west-1", "us-east-2"}
    running = subprocess.Popen(
        [BIN / "starphleet", "info", "ec2"],
        env=here.env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        before = len(here.aws.asked)
        while ("us-east-2", "DescribeInstances") not in here.aws.asked[before:]:
            assert time.monotonic() < end
            time.sleep(0.02)
        told = time.monotonic()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
        assert (running.returncode, out, err) == (130, b"", b"")
        assert time.monotonic() - told < 10
    finally:
        here.aws.silent.clear()
        here.aws.held.set()
        running.kill()
        running.wait()


def test_regions_are_not_waited_for() -> None:
    """Those that do not answer in time are named, each in its line, after those that did."""

    class Session:
        region_name = None

        def get_credentials(self) -> str:
            return "some"

        def client(self, _: str, *, region_name: str, config: object) -> str:
            return region_name

    def ask(region: str) -> str:
        if region.startswith("slow"):
            time.sleep(60)
        if region == "broken":
            raise Refused("broken")
        return region.upper()

    there = aws.Aws(Session())
    answers = [*there.in_each(["slow", "quick", "slower", "broken"], ask, 0.5)]
    assert sorted((one.region, one.value, one.trouble) for one in answers[:2]) == [
        ("broken", None, "broken"),
        ("quick", "QUICK", ""),
    ]
    assert [(one.region, one.trouble) for one in answers[2:]] == [
        ("slow", "slow: no answer within 0.5 s"),
        ("slower", "slower: no answer within 0.5 s"),
    ]


def test_rules_of_a_group() -> None:
    """What others opened counts, as far as it is open to everybody; the rest is lacking."""

    def rule(protocol: str, first: int, last: int, **ranges: Any) -> dict[str, Any]:
        return {"IpProtocol": protocol, "FromPort": first, "ToPort": last, **ranges}

    def open_(*permissions: dict[str, Any]) -> list[tuple[int, bool]]:
        lacking = group.lacking(permissions)
        return [(one["FromPort"], "Ipv6Ranges" in one) for one in lacking]

    all4: Any = {"IpRanges": [{"CidrIp": "10.0.0.0/8"}, {"CidrIp": "0.0.0.0/0"}]}
    all6: Any = {"Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    every = [(22, False), (22, True), (80, False), (80, True), (443, False), (443, True)]
    assert open_() == every
    assert open_(rule("tcp", 22, 22, IpRanges=[{"CidrIp": "10.0.0.0/8"}])) == every
    assert open_(rule("udp", 0, 65535, **all4)) == every
    assert open_(rule("tcp", 1, 100, **all4)) == [every[1], *every[3:]]
    assert open_({"IpProtocol": "-1", **all4, **all6}) == []


def test_names_of_records() -> None:
    """The first label of the host, in the domain; addresses by their kind, each once."""
    assert names.record_name("Ship-1.internal", "Example.com.") == "ship-1.example.com"
    for host, domain in (("", "example.com"), ("a", ""), ("a b", "c"), ("a", "b;c"), ("a", "-b")):
        with pytest.raises(Refused):
            names.record_name(host, domain)
    assert names.addresses_of(["2001:DB8::1", "192.0.2.1", "192.0.2.1"]) == {
        "AAAA": ["2001:db8::1"],
        "A": ["192.0.2.1"],
    }


def test_what_aws_says_is_one_line() -> None:
    """Without what could command a terminal, and not endlessly."""
    line = aws.red("a\nb\x1b[2J\x9b1mc  d " + "x" * 1000)
    assert line.startswith("a bc d x")
    assert len(line) == 300


def test_whose_credentials(here: Workstation, tmp_path: Path) -> None:
    """Those in boto3's own file do as well."""
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = AKIAX\naws_secret_access_key = y\n")
    empty = dict.fromkeys(KEYS, "")
    status, _, err = here.do("init ec2", AWS_SHARED_CREDENTIALS_FILE=str(file), **empty)
    assert (status, err) == (0, "")
