"""The studio's page: the live page, and what teaches labels.

POST /studio/ACTION                  do something, see `_actions`; the body is a JSON object with the arguments
GET  /studio/images?label=X          the file names of a label's images, the newest first
GET  /studio/rejected                the labels and file names of images that were taken out, the last one first
GET  /studio/cameras                 the cameras that can be chosen; takes seconds
GET  /studio/image?label=X&name=Y    an image, small; with &size=large a large one, with &rejected=1 one taken out
GET  /studio/model?name=X            a model file that was taken along
GET  /studio/kit.zip?name=X          the same, with a program that runs it
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, AsyncIterator, Callable

import cv2
import numpy as np
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from teachcam.cli import first_line
from teachcam.errors import UnreadableImage, UserError
from teachcam.images import encode_jpeg, read_image
from teachcam.live.web.json_requests import MAX_BODY_BYTES, json_error, read_json
from teachcam.live.web.server import Web
from teachcam.preprocessing import shrink
from teachcam.teach.kit import pack_kit
from teachcam.teach.session import Studio

if TYPE_CHECKING:
    from teachcam.collect.camera import Camera
    from teachcam.live.sinks.base import FrameResult

THUMBNAIL_SIZE = (120, 160)  # pixels: the image stays at least that large
STATE_LIFETIME = 0.2  # seconds for which a state is not computed again
LARGE_SIDE = 1280  # pixels at most
MAX_NAMES_BYTES = 256 * 1024  # of a body with the names of images: 2,000 of 60 characters, or more

# Whether a value of a request can be the argument for a parameter with this annotation.
_IS_OF_TYPE: dict[str, Callable[[object], bool]] = {
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: value is None or isinstance(value, str),
    "list[str]": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
}


class StudioPage(Web):
    """A sink of the live loop that serves the page. Actions run in one thread, one after another.

    What opens cameras has a thread of its own, because it takes long.
    """

    def __init__(self, address: str, port: int, camera: Camera, studio: Studio, in_notebook: bool = False):
        """Start serving; `url` is the address to open.

        Args:
            address: Where to listen, for example 127.0.0.1 or 0.0.0.0.
            port: 0 for any free port.
            camera: Where the frames come from; the page tells when it is lost.
            studio: What the actions are called on.
            in_notebook: Let notebooks that this machine serves show the page in a frame.

        Raises:
            UserError: The address does not exist or the port is taken.
        """
        self._studio = studio
        self._actions: dict[str, Callable] = {
            "record": studio.recording.begin,
            "stop": studio.recording.end,
            "place": studio.recording.set_place,
            "undo": studio.labels.undo,
            "redo": studio.labels.redo,
            "add": studio.labels.add,
            "rename": studio.labels.rename,
            "remove": studio.labels.remove,
            "order": studio.labels.order,
            "move": studio.labels.move,
            "restore": studio.labels.restore,
            "camera": studio.camera.choose,
            "mirror": studio.camera.mirror,
            "export": studio.take_along.start,
            "cancel_export": studio.take_along.cancel,
            "train": studio.trainer.train,
            "stop_training": studio.trainer.stop,
            "resume_training": studio.trainer.resume,
        }
        self._action_thread = ThreadPoolExecutor(1, "studio")
        self._camera_thread = ThreadPoolExecutor(1, "change camera")
        self._threads = {"camera": self._camera_thread, "mirror": self._camera_thread}  # the page goes on meanwhile
        self._stated_at = float("-inf")  # time.monotonic()
        self._studio_state: dict[str, object] = {}
        super().__init__(address, port, [], camera, in_notebook=in_notebook)

    def __call__(self, result: FrameResult) -> bool:
        """Take the newest result. Raises UserError if a thread of the page has ended."""
        self._studio.look(result.frame)
        return super().__call__(result)

    def close(self) -> None:
        """Close all connections, free the port, and finish the actions that are running."""
        super().close()
        self._action_thread.shutdown()
        self._camera_thread.shutdown()

    def routes(self) -> list[Route]:
        """Return the routes of the studio."""
        return [
            Route("/studio/cameras", self._get_cameras),
            Route("/studio/images", self._get_images),
            Route("/studio/rejected", self._get_rejected),
            Route("/studio/image", self._get_image),
            Route("/studio/model", self._get_model),
            Route("/studio/kit.zip", self._get_kit),
            Route("/studio/{action}", self._post_action, methods=["POST"]),
        ]

    def extra_state(self) -> dict[str, object]:
        """Return the state of the studio. It is computed anew after an action, and now and then."""
        now = time.monotonic()
        if now - self._stated_at > STATE_LIFETIME:
            self._stated_at, self._studio_state = now, {"studio": self._studio.state()}
        return self._studio_state

    @contextlib.asynccontextmanager
    async def connected(self, page: str) -> AsyncIterator[None]:
        """Let a page record while it has a connection. What it is recording then ends."""
        recording = self._studio.recording
        await asyncio.get_running_loop().run_in_executor(self._action_thread, recording.page_opened, page)
        try:
            yield
        finally:
            with contextlib.suppress(RuntimeError):  # the server is closing, and ends all recordings
                self._action_thread.submit(recording.page_closed, page)

    async def _post_action(self, request: Request) -> Response:
        action = self._actions.get(request.path_params["action"])
        if action is None:
            return json_error(404, "there is no such action")
        signature = inspect.signature(action)
        arguments = await read_json(request, MAX_NAMES_BYTES if "names" in signature.parameters else MAX_BODY_BYTES)
        if isinstance(arguments, Response):
            return arguments
        try:
            signature.bind(**arguments)
        except TypeError as error:
            return json_error(400, f"{request.path_params['action']}: {error}")
        for name, value in arguments.items():
            if not _IS_OF_TYPE[signature.parameters[name].annotation](value):
                return json_error(400, f"{name} has to be {signature.parameters[name].annotation}")
        thread = self._threads.get(request.path_params["action"])
        try:
            return await self._answer(functools.partial(action, **arguments), _to_result, thread)
        finally:
            self._stated_at = float("-inf")

    async def _get_cameras(self, request: Request) -> Response:
        return await self._answer(self._studio.camera.find, JSONResponse, self._camera_thread)

    async def _get_images(self, request: Request) -> Response:
        label = request.query_params.get("label", "")
        return await self._answer(functools.partial(self._studio.labels.images, label), JSONResponse)

    async def _get_rejected(self, request: Request) -> Response:
        return await self._answer(self._studio.labels.rejected, JSONResponse)

    async def _get_image(self, request: Request) -> Response:
        query = request.query_params
        find = self._studio.labels.rejected_path if query.get("rejected") else self._studio.labels.path

        def read() -> bytes:
            image = read_image(find(query.get("label", ""), query.get("name", "")))
            return encode_jpeg(_limit(image) if query.get("size") == "large" else shrink(image, THUMBNAIL_SIZE), 85)

        return await self._answer(read, lambda jpeg: Response(jpeg, media_type="image/jpeg"))

    async def _get_model(self, request: Request) -> Response:
        name = request.query_params.get("name", "")
        return await self._answer(
            functools.partial(self._studio.take_along.path, name), lambda path: FileResponse(path, filename=name)
        )

    async def _get_kit(self, request: Request) -> Response:
        name = request.query_params.get("name", "")
        headers = {"Content-Disposition": 'attachment; filename="teachcam-kit.zip"'}
        return await self._answer(
            lambda: pack_kit(self._studio.take_along.path(name)),
            lambda content: Response(content, 200, headers, "application/zip"),
        )

    async def _answer(
        self, function: Callable, to_response: Callable[..., Response], thread: ThreadPoolExecutor | None = None
    ) -> Response:
        """Run a function in a thread, by default that of the actions. Return a response with its result or error."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(thread or self._action_thread, function)
        except (UserError, UnreadableImage) as error:
            return json_error(507 if isinstance(error.__context__, OSError) else 409, first_line(error))
        except OSError as error:
            return json_error(507, error.strerror or type(error).__name__)
        return to_response(result)


def _limit(image: np.ndarray) -> np.ndarray:
    """Return an image, uint8 [H, W, 3], with no side above LARGE_SIDE pixels."""
    height, width = image.shape[:2]
    scale = LARGE_SIDE / max(height, width)
    size = max(1, round(scale * width)), max(1, round(scale * height))
    return image if scale >= 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _to_result(result: object) -> Response:
    return JSONResponse({"result": result})
