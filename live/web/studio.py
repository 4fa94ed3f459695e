"""The routes of the studio page.

POST /studio/ACTION                  call a method of Studio; the body is a JSON object with its arguments
GET  /studio/images?label=X          the file names of a label's images, the newest first
GET  /studio/image?label=X&name=Y    an image, small
GET  /studio/model?name=X            a model file that was taken along
GET  /studio/kit.zip?name=X          the same, with a program that runs it
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from teachcam.cli import first_line
from teachcam.errors import UnreadableImage, UserError
from teachcam.images import encode_jpeg, read_image
from teachcam.live.teaching.kit import pack_kit
from teachcam.live.teaching.studio import Studio
from teachcam.live.web.json_requests import json_error, read_json
from teachcam.preprocessing import shrink

THUMBNAIL_SIZE = (120, 160)  # pixels: the image stays at least that large


class StudioRoutes:
    """Answers the requests of the studio page. Actions run in one thread, one after another."""

    def __init__(self, studio: Studio):
        """Create the routes.

        Args:
            studio: What the actions are called on.
        """
        self._studio = studio
        self._actions: dict[str, Callable] = {
            "record": studio.record,
            "stop": studio.stop,
            "undo": studio.undo,
            "place": studio.set_place,
            "add": studio.add_label,
            "rename": studio.rename_label,
            "remove": studio.remove_label,
            "move": studio.move_image,
            "export": studio.take_along.start,
            "cancel_export": studio.take_along.cancel,
            "train": studio.better.train,
            "stop_training": studio.better.stop,
            "resume_training": studio.better.resume,
        }
        self._thread = ThreadPoolExecutor(1, "studio")
        self.routes = [
            Route("/studio/images", self._get_images),
            Route("/studio/image", self._get_image),
            Route("/studio/model", self._get_model),
            Route("/studio/kit.zip", self._get_kit),
            Route("/studio/{action}", self._post_action, methods=["POST"]),
        ]

    def close(self) -> None:
        """Finish the actions that are running."""
        self._thread.shutdown()

    async def _post_action(self, request: Request) -> Response:
        action = self._actions.get(request.path_params["action"])
        if action is None:
            return json_error(404, "there is no such action")
        arguments = await read_json(request)
        if isinstance(arguments, Response):
            return arguments
        if not all(isinstance(value, str) or value is None for value in arguments.values()):
            return json_error(400, "send strings")
        try:
            inspect.signature(action).bind(**arguments)
        except TypeError as error:
            return json_error(400, f"{request.path_params['action']}: {error}")
        return await self._answer(functools.partial(action, **arguments), _to_result)

    async def _get_images(self, request: Request) -> Response:
        label = request.query_params.get("label", "")
        return await self._answer(functools.partial(self._studio.images, label), JSONResponse)

    async def _get_image(self, request: Request) -> Response:
        label, name = request.query_params.get("label", ""), request.query_params.get("name", "")

        def read() -> bytes:
            return encode_jpeg(shrink(read_image(self._studio.image_path(label, name)), THUMBNAIL_SIZE), 85)

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

    async def _answer(self, function: Callable, to_response: Callable[..., Response]) -> Response:
        """Run a function in the thread of the actions. Return a response with its result or error."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except (UserError, UnreadableImage) as error:
            return json_error(507 if isinstance(error.__context__, OSError) else 409, first_line(error))
        except OSError as error:
            return json_error(507, error.strerror or type(error).__name__)
        return to_response(result)


def _to_result(result: object) -> Response:
    return JSONResponse({"result": result})
