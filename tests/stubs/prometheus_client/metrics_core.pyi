from typing import NamedTuple

class Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float

class Metric:
    name: str
    documentation: str
    type: str
    samples: list[Sample]
