"""A stand-in for embedding services: it speaks their protocols on loopback, in front of a local model, with faults.

    with StandIn(key="secret", faults=[Fault(429, headers={"retry-after": "1"})]).running() as address:
        service = OpenAiDialect(dialect="openai", model="any", base_url=f"{address}/openai/v1")

`python -m tests.api_server --help` starts one in a process of its own.
"""

from tests.api_server.encoders import hash_encoder, minilm_encoder
from tests.api_server.faults import Fault
from tests.api_server.server import Counts, StandIn

__all__ = ["Counts", "Fault", "StandIn", "hash_encoder", "minilm_encoder"]
