"""Git's pre-receive and proc-receive hooks, and `hq wait`: they ask the ship, and show its words.

Standard library alone and no imports but these: it starts twice in every push. The ship sends
lines of JSON: {"say": TEXT} to be shown, and at the end {"verdict": REASON}, or {"verdict": "",
"moved": BOOL}, which is false when git is to move the branch itself, or {"again": QUESTION}:
another process of the ship is to be asked, with what is in QUESTION instead.
"""

import json
import os
import socket
import sys

Updates = list[list[str]]
Answer = dict[str, object]
QUARANTINE = ("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES")
STOPPED = "the ship stopped; what served before serves again when it is back: push again"


def main() -> int:
    hook = os.path.basename(sys.argv[0])
    if hook == "hq-wait":
        return 1 if ask(hook, [], sys.argv[1:])["verdict"] else 0
    if hook == "pre-receive":
        count = int(os.environ.get("GIT_PUSH_OPTION_COUNT", "0"))
        options = [os.environ[f"GIT_PUSH_OPTION_{i}"] for i in range(count)]
        updates = [line.split(" ", 2) for line in sys.stdin.read().split("\n")[:-1]]
        return 1 if ask(hook, updates, options)["verdict"] else 0
    updates, options = read_commands()
    answer = ask(hook, updates, options)
    for _, _, ref in updates:
        write(f"ng {ref} {answer['verdict']}" if answer["verdict"] else f"ok {ref}")
        if not answer["verdict"] and not answer["moved"]:
            write("option fall-through")
    flush()
    return 0


def ask(hook: str, updates: Updates, options: list[str]) -> Answer:
    """The ship's answer: the verdict "" is yes, anything else the reason, which is shown by now."""
    question: Answer = {
        "hook": hook,
        "repository": os.environ["STARPHLEET_REPOSITORY"],
        "owner": os.environ["STARPHLEET_OWNER"],
        "updates": updates,
        "options": options,
        "quarantine": {name: os.environ[name] for name in QUARANTINE if name in os.environ},
    }
    try:
        answer = ask_once(question)
        while isinstance(again := answer.get("again"), dict):
            question |= again
            answer = ask_once(question)
    except (OSError, ValueError):  # a line may be torn when the ship is killed
        answer = {}
    if "verdict" in answer:
        return answer
    show(f" !     {STOPPED}")
    return {"verdict": STOPPED}


def ask_once(question: Answer) -> Answer:
    """The last line of the answer, {} when there was none."""
    with socket.socket(socket.AF_UNIX) as ship:
        ship.connect(os.environ["STARPHLEET_SOCKET"])
        ship.sendall(json.dumps(question).encode() + b"\n")
        for line in ship.makefile("rb"):
            answer: Answer = json.loads(line)
            if "verdict" in answer or "again" in answer:
                return answer
            show(str(answer["say"]))
    return {}


def show(text: str) -> None:
    sys.stderr.buffer.write(text.encode("utf-8", "replace") + b"\n")
    sys.stderr.buffer.flush()


def read_commands() -> tuple[Updates, list[str]]:
    """The version handshake of gitprotocol's proc-receive, then the updates and push options."""
    offered = any("push-options" in packet for packet in packets())
    write("version=1\0push-options" if offered else "version=1")
    flush()
    updates = [packet.split(" ", 2) for packet in packets()]
    return updates, packets() if offered else []


def packets() -> list[str]:
    found: list[str] = []
    while True:
        size = int(sys.stdin.buffer.read(4) or b"0", 16)
        if size == 0:
            return found
        found.append(
            sys.stdin.buffer.read(size - 4).decode("utf-8", "surrogateescape").rstrip("\n")
        )


def write(text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    sys.stdout.buffer.write(b"%04x" % (len(data) + 4) + data)


def flush() -> None:
    sys.stdout.buffer.write(b"0000")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
