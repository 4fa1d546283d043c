"""The data owner's side of a platform that is elsewhere."""

from nni_hyperfd.client.connection import AddressError, checked_address, token_of
from nni_hyperfd.client.patient import PatientPlatform
from nni_hyperfd.client.remote import RemotePlatform

__all__ = ["AddressError", "PatientPlatform", "RemotePlatform", "checked_address", "token_of"]
