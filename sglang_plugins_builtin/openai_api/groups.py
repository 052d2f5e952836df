"""The groups of routes. Their modules are imported when a server is built."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from sglang_core import OpenApiPaths, Server


class ImageGroup:
    """``/v1/images``."""

    name = "openai-images"
    order = 20

    def routes(self, server: "Server") -> "Sequence[BaseRoute]":
        """Return the routes."""
        from .images import ImageRoutes

        return ImageRoutes(server).routes()

    def describe(self, server: "Server") -> "OpenApiPaths":
        """Return what the document says about them."""
        from .paths import image_paths

        return image_paths()


class VideoGroup:
    """``/v1/videos``."""

    name = "openai-videos"
    order = 21

    def routes(self, server: "Server") -> "Sequence[BaseRoute]":
        """Return the routes."""
        from .videos import VideoRoutes

        return VideoRoutes(server).routes()

    def describe(self, server: "Server") -> "OpenApiPaths":
        """Return what the document says about them."""
        from .paths import video_paths

        return video_paths()


class ModelGroup:
    """``/v1/models``."""

    name = "openai-models"
    order = 22

    def routes(self, server: "Server") -> "Sequence[BaseRoute]":
        """Return the routes."""
        from .model_names import model_routes

        return model_routes(server)

    def describe(self, server: "Server") -> "OpenApiPaths":
        """Return what the document says about them."""
        from .paths import model_paths

        return model_paths()


class LoraGroup:
    """``/v1/set_lora`` and its like."""

    name = "lora"
    order = 23

    def routes(self, server: "Server") -> "Sequence[BaseRoute]":
        """Return the routes."""
        from .lora import lora_routes

        return lora_routes(server)

    def describe(self, server: "Server") -> "OpenApiPaths":
        """Return what the document says about them."""
        from .paths import lora_paths

        return lora_paths()


class DocumentGroup:
    """``/openapi.json`` and ``/docs``."""

    name = "openapi"
    order = 90

    def routes(self, server: "Server") -> "Sequence[BaseRoute]":
        """Return the routes."""
        from .document_routes import document_routes

        return document_routes(server)

    def describe(self, server: "Server") -> "OpenApiPaths":
        """Return nothing: the document does not describe itself."""
        return {}
