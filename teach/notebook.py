"""The studio in a notebook: the page of `teachcam studio`, in a cell.

    from teachcam.collect.camera import Camera
    from teachcam.teach.notebook import StudioFrame

    StudioFrame(Camera(0))

`notebooks/studio.ipynb` uses it.
"""

from __future__ import annotations

import atexit
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from IPython.display import IFrame

from teachcam.collect.camera import Camera
from teachcam.files import expand
from teachcam.live.loop import loop
from teachcam.live.web import http_address
from teachcam.teach.backbone import Backbone
from teachcam.teach.page import StudioPage
from teachcam.teach.session import Studio
from teachcam.teach.teacher import FOLDER, Teacher


class StudioFrame(IFrame):
    """A frame with the studio. It ends with the kernel, or by `close`; close the camera after that."""

    def __init__(
        self, camera: Camera, data: Path | str = "data", http: str = "0", provider: str | None = None, height: int = 900
    ):
        """Start the studio's server, and the live loop behind it.

        Args:
            camera: An open live camera.
            data: The dataset's folder.
            http: PORT or ADDRESS:PORT, as for `--http`. A bare PORT, of which 0 is any free one, is for a browser on
                this machine. For one elsewhere, give 0.0.0.0:PORT: the frame's address then contains a token.
            provider: What runs the backbone: tensorrt, cuda or cpu. By default the first of them that works.
            height: Height of the frame in pixels.
        """
        data, stop = expand(data), threading.Event()
        with ExitStack() as stack:
            teacher = Teacher(data, Backbone(data / FOLDER, provider))
            stack.callback(teacher.close)
            studio = Studio(camera, data, teacher, Path("runs") / time.strftime("%Y%m%d-%H%M%S"))
            stack.callback(studio.close)
            page = StudioPage(*http_address(http), camera, studio, in_notebook=True)
            options = {"watcher": studio, "stop": stop}
            thread = threading.Thread(target=loop, args=(camera, teacher.model, [page]), kwargs=options, daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(stop.set)
            self._stack = stack.pop_all()
        atexit.register(self.close)  # Python aborts if it ends while the thread is inside OpenCV
        super().__init__(page.url, "100%", height)

    def close(self) -> None:
        """Stop recording, learning and answering, and free the port."""
        atexit.unregister(self.close)
        self._stack.close()
