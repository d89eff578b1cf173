#!/bin/sh
# Remove from the running Python environment what an image never uses: the packages' tests, torch's headers and test programs.
set -eu
cd "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
find . -type d -name tests -prune -exec rm -rf {} +
rm -rf torch/test torch/include
find torch/bin -type f ! -name torch_shm_manager -delete
