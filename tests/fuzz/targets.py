"""All targets, by the name that ``scripts/fuzz --target`` takes."""

from tests.fuzz import cores, data
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    "framing": cores.FRAMING,
    "server": cores.SERVER,
    "client": cores.CLIENT,
    "answering": data.ANSWERING,
    "asking": data.ASKING,
    "segment": data.SEGMENT,
    "channel": data.CHANNEL,
}
