"""Instances that are ships: made, told apart from others, terminated."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hooks.errors import Refused, ShipError
from receiver.cloud import group
from receiver.cloud.aws import unless
from receiver.cloud.user_data import user_data
from receiver.cloud.wish import Wish

DEBIAN = "136693071363"  # who publishes Debian's images, see wiki.debian.org/Cloud/AmazonEC2Image
IMAGE = "debian-12-{}-*"
DISK = 64  # GB: a build may take 16, and what is kept of all of them stands beside it
NAME = "Starphleet"
_ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}  # as AWS and Debian call them
_ID = re.compile(r"i-[0-9a-f]{8,17}")
_GONE = "terminated"

Say = Callable[[str], None]


def add(ec2: Any, wish: Wish, subnet: str | None, say: Say) -> str:
    """Run one instance that makes a ship of itself, with all that it needs; its id."""
    vpc = _vpc(ec2, subnet) if subnet else group.default_vpc(ec2)
    image = newest_image(ec2, wish.size)
    group_id, did = group.ensure(ec2, vpc)
    say(did)
    say(_key_pair(ec2, wish))
    asked = request(wish, image, group_id, subnet)
    (instance,) = ec2.run_instances(**asked)["Instances"]
    say(
        f"{ec2.meta.region_name}: {instance['InstanceId']} starts, a {wish.size} of {image['Name']}"
    )
    return str(instance["InstanceId"])


def request(
    wish: Wish, image: Mapping[str, Any], group_id: str, subnet: str | None
) -> dict[str, Any]:
    """What `run_instances` is asked for."""
    tags = [
        {"Key": "Name", "Value": NAME},
        {"Key": "Headquarters", "Value": wish.told.headquarters},
    ]
    disk = {
        "VolumeSize": DISK,
        "VolumeType": "gp3",
        "Encrypted": True,
        "DeleteOnTermination": True,
    }
    return {
        "MinCount": 1,
        "MaxCount": 1,
        "ImageId": image["ImageId"],
        "InstanceType": wish.size,
        "KeyName": wish.key_name,
        "SecurityGroupIds": [group_id],
        **({"SubnetId": subnet} if subnet else {}),
        "UserData": user_data(wish.told),
        "BlockDeviceMappings": [{"DeviceName": image["RootDeviceName"], "Ebs": disk}],
        # Only by a token, which gets no further than the instance: no container has it.
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 1,
        },
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")
        ],
    }


def newest_image(ec2: Any, size: str) -> Mapping[str, Any]:
    """Debian's, for the processors of `size`."""
    (about,) = ec2.describe_instance_types(InstanceTypes=[size])["InstanceTypes"]
    fitting = about["ProcessorInfo"]["SupportedArchitectures"]
    names = [_ARCHITECTURES[one] for one in fitting if one in _ARCHITECTURES]
    pattern = IMAGE.format(names[0] if names else "amd64")
    filters = [
        {"Name": "name", "Values": [pattern]},
        {"Name": "state", "Values": ["available"]},
    ]
    found = ec2.describe_images(Owners=[DEBIAN], Filters=filters)["Images"]
    if not found:
        raise ShipError(f"{ec2.meta.region_name}: there is no image {pattern} of Debian's")
    newest: Mapping[str, Any] = max(found, key=lambda one: one["CreationDate"])
    return newest


def ours(ec2: Any) -> Iterator[Mapping[str, Any]]:
    """The instances of a region that are ships, but for those that are gone."""
    filters = [
        {"Name": "tag:Name", "Values": [NAME]},
        {"Name": "tag-key", "Values": ["Headquarters"]},
    ]
    for page in ec2.get_paginator("describe_instances").paginate(Filters=filters):
        for reservation in page["Reservations"]:
            yield from (one for one in reservation["Instances"] if _state(one) != _GONE)


def tagged(instance: Mapping[str, Any]) -> Mapping[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}


def ship(ec2: Any, instance_id: str) -> Mapping[str, Any]:
    """One of them; `Refused` where it is somebody else's or gone."""
    if not _ID.fullmatch(instance_id):
        raise Refused(f"{ascii(instance_id)[:40]} is no instance's id; `starphleet info ec2` says")
    (reservation,) = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
    (instance,) = reservation["Instances"]
    tags = tagged(instance)
    if tags.get("Name") != NAME or "Headquarters" not in tags:
        raise Refused(f"{instance_id} is not Starphleet's: it has not the tags of a ship")
    if _state(instance) == _GONE:
        raise Refused(f"{instance_id} is gone already")
    found: Mapping[str, Any] = instance
    return found


def _state(instance: Mapping[str, Any]) -> str:
    return str(instance["State"]["Name"])


def _vpc(ec2: Any, subnet: str) -> str:
    (found,) = ec2.describe_subnets(SubnetIds=[subnet])["Subnets"]
    return str(found["VpcId"])


def _key_pair(ec2: Any, wish: Wish) -> str:
    """Let there be the public key; what was done. `Refused` where another key has its name."""
    name, key = wish.key_name, wish.told.key
    region = ec2.meta.region_name
    filters = [{"Name": "key-name", "Values": [name]}]

    def there() -> list[Any]:
        found: list[Any] = ec2.describe_key_pairs(Filters=filters, IncludePublicKey=True)[
            "KeyPairs"
        ]
        return found

    known = there()
    if not known:
        with unless("InvalidKeyPair.Duplicate"):
            ec2.import_key_pair(KeyName=name, PublicKeyMaterial=key.encode())
            ec2.get_waiter("key_pair_exists").wait(KeyNames=[name])
            return f"{region}: made key pair {name} of STARPHLEET_PUBLIC_KEY"
        known = there()
    if not any(_same(str(one.get("PublicKey", "")), key) for one in known):
        raise Refused(
            f"{region}: key pair {name} has another key than STARPHLEET_PUBLIC_KEY; set that one, "
            f"or remove it: aws ec2 delete-key-pair --region {region} --key-name {name}"
        )
    return f"{region}: key pair {name} is there, and is STARPHLEET_PUBLIC_KEY"


def _same(one: str, other: str) -> bool:
    """Whether two lines are the same key, whatever is said of it behind."""
    return one.split()[:2] == other.split()[:2]
