"""mkimage.py OUT NAME:TAG CONFIG-JSON LAYER.tar...: writes a docker-archive image, which `ctr images import` reads."""
import hashlib
import io
import json
import platform
import sys
import tarfile

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def write(out, name, config, layers):
    digests = [digest(layer) for layer in layers]
    image = json.dumps({
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Env": [PATH], **config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{each}" for each in digests]},
    }).encode()
    image_file = hashlib.sha256(image).hexdigest() + ".json"
    paths = [f"{each}/layer.tar" for each in digests]
    with tarfile.open(out, "w") as archive:
        add(archive, image_file, image)
        manifest = [{"Config": image_file, "RepoTags": [name], "Layers": paths}]
        add(archive, "manifest.json", json.dumps(manifest).encode())
        for path, layer in zip(paths, layers):
            archive.add(layer, path)


write(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4:])
