"""The KServe gateway: REST, V1, V2 over HTTP and gRPC, in front of TorchServe."""
