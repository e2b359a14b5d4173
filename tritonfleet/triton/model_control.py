"""Requests to load and to unload a model, as one server takes them."""

from tritonclient.grpc import service_pb2

from tritonfleet.core.wire import RpcRequest
from tritonfleet.triton.client import SERVICE

DEPENDENTS = "unload_dependents"


def load_request(model: str) -> RpcRequest:
    """Load it, or load it again with what its folder holds now."""
    message = service_pb2.RepositoryModelLoadRequest(model_name=model)
    return RpcRequest(f"{SERVICE}/RepositoryModelLoad", message.SerializeToString())


def unload_request(model: str, *, dependents: bool = False) -> RpcRequest:
    """``dependents``: of an ensemble, the models that it is made of as well."""
    message = service_pb2.RepositoryModelUnloadRequest(model_name=model)
    if dependents:
        message.parameters[DEPENDENTS].bool_param = True
    return RpcRequest(f"{SERVICE}/RepositoryModelUnload", message.SerializeToString())
