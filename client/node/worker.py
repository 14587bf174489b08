"""The worker: a process that keeps the libraries and the patients in memory and answers requests.

One rpc over a Unix socket that only its owner can open: the parts of a message come in, the parts
of the reply go out. What runs is the client app that is installed here; no code ever arrives.
"""

import os
import queue
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
from flwr.app import Context, Message, RecordDict

from client.boundary import out_of_memory
from protocol.parcels import in_parcels
from protocol.parts import MAX_PART_BYTES, assemble, parts_of
from protocol.refusal import Refusal

__all__ = ["ANSWER", "OPTIONS", "SERVICE", "App", "context_of", "reply_of", "serve"]

SERVICE, ANSWER = "concors.Worker", "Answer"
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_PART_BYTES),
    ("grpc.max_send_message_length", MAX_PART_BYTES),
    ("grpc.enable_http_proxy", 0),
)
App = Callable[[Message, Context], Message]
Job = tuple[Message, "Future[Message]"]


def serve(socket: Path, site_dir: Path, app: App) -> None:
    """Answer requests with ``app`` until the process is ended; one at a time, in this thread.

    Parameters
    ----------
    socket : Path
        Where to listen, in a directory that only its owner can enter.
    site_dir : Path
        The hospital, as the app's context names it.
    app : callable
        What turns a message into a reply.
    """
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def answer(parts: Iterable[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        done: Future[Message] = Future()
        jobs.put((assemble(parts), done))
        yield from parts_of(done.result())

    handler = grpc.stream_stream_rpc_method_handler(answer)
    server = grpc.server(ThreadPoolExecutor(2), options=OPTIONS, maximum_concurrent_rpcs=1)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {ANSWER: handler}),)
    )
    before = os.umask(0o177)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    os.umask(before)
    # The app works in the main thread, as it would in a process of its own: the numbers of threads
    # torch is told, and the pools of processes that read images, belong to it.
    while True:
        message, done = jobs.get()
        done.set_result(reply_of(app, message, site_dir))
        del message, done


def context_of(message: Message, site_dir: Path) -> Context:
    """Return the context in which a message to this hospital is answered."""
    return Context(
        run_id=message.metadata.run_id,
        node_id=message.metadata.dst_node_id,
        node_config={"site": str(site_dir)},
        state=RecordDict(),
        run_config={},
    )


def reply_of(app: App, message: Message, site_dir: Path) -> Message:
    """Return the app's reply, or a refusal of ours for whatever the app let through."""
    try:
        return in_parcels(message, lambda opened: app(opened, context_of(opened, site_dir)))
    except MemoryError:
        return Message(Refusal.of(out_of_memory()).to_error(), reply_to=message)
    except Exception:  # noqa: BLE001 - its text may hold a path or a name and must not leave
        refusal = Refusal(
            "E900",
            f"The client failed unexpectedly in {message.metadata.message_type[:40]}; both ends "
            "must run the same version.",
        )
        return Message(refusal.to_error(), reply_to=message)


def _limit_device(site_dir: Path) -> None:
    """Take no more of the GPU's memory than the hospital's policy gives."""
    import torch

    from client.policy import load_policy
    from client.site import load_site

    share = load_policy(site_dir, load_site(site_dir)).device.gpu_memory_share
    if share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def main() -> None:
    """Load all that a request may need, and serve the hospital that the command line names."""
    socket, site_dir = Path(sys.argv[1]), Path(sys.argv[2])
    # Imported for what it costs: seconds now, so that no request pays them.
    import client.prognosis
    import client.prognosis_validation
    import client.segment
    import client.segment_validation
    import client.survey  # noqa: F401
    from client.app import app

    _limit_device(site_dir)
    serve(socket, site_dir, app)


if __name__ == "__main__":
    main()
