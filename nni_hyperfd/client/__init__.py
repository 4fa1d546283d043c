"""The data owner's side of a platform that is elsewhere."""

from nni_hyperfd.client.remote import RemotePlatform

__all__ = ["RemotePlatform"]
