"""Between bytes and arrays: image files, KServe V1 and the Open Inference Protocol V2."""
