"""Which package index a node uses: what its administrator already told pip or uv, or Perak itself."""

import configparser
import os
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

DEFAULT_INDEX_URL = "https://pypi.org/simple"
# Indexes that keep their files on another host than their pages; others are named in PERAK_INDEX_FILE_HOSTS.
KNOWN_FILE_HOSTS: Mapping[str, tuple[str, ...]] = {"pypi.org": ("files.pythonhosted.org",)}
# PyTorch's own index has a folder of wheels for each CUDA variant (pytorch.org/get-started/locally).
TORCH_INDEX_URL = "https://download.pytorch.org/whl"
# Found as links on these packages' pages, so that nothing else comes from there. What is built against one
# variant of torch fails with another, and may be needed by a package that nobody named: hence all three.
TORCH_PACKAGES = ("torch", "torchvision", "torchaudio")
DEFAULT_PORTS = {"http": 80, "https": 443}

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Upstream:
    """The HTTP proxy through which this node reaches the world; `authorization` is a ready header value."""

    host: str
    port: int
    authorization: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """Where packages come from, and how the node gets there.

    URLs may carry a user and password: they are never logged. `find_links` are folders of wheels.
    `best_match` is pip's way with several indexes (the best version of any); otherwise the first index that
    knows a package is it.
    """

    index_url: str | None = DEFAULT_INDEX_URL
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    file_hosts: tuple[Address, ...] = ()
    best_match: bool = False
    cert_file: Path | None = None
    proxies: tuple[tuple[str, str], ...] = ()
    torch_index_url: str | None = None
    """Where PyTorch's wheels for other CUDA variants are; None: this node takes only what its index has."""

    @classmethod
    def from_environment(
        cls, env: Mapping[str, str] | None = None, pip_files: Iterable[Path] | None = None
    ) -> Self:
        """The settings that hold on this node.

        PERAK_INDEX_URL, when set, stands alone, with PERAK_EXTRA_INDEX_URLS and PERAK_FIND_LINKS. Otherwise
        uv's variables, pip's variables and pip's configuration files are read, in this order of precedence.
        PERAK_TORCH_INDEX_URL names PyTorch's index or a mirror of it, "off" none; without it, a node that
        installs from PyPI itself uses PyTorch's own.
        """
        env = os.environ if env is None else env
        common = _Common.read(env)
        if own := env.get("PERAK_INDEX_URL"):
            return cls(
                index_url=own,
                extra_index_urls=_words(env.get("PERAK_EXTRA_INDEX_URLS")),
                find_links=_words(env.get("PERAK_FIND_LINKS")),
                file_hosts=common.file_hosts,
                cert_file=common.cert_file,
                proxies=common.proxies,
                torch_index_url=_torch_index(env, own),
            )
        pip = _pip_options(pip_config_files(env) if pip_files is None else pip_files, env)
        uv_extra = (*_uv_indexes(env.get("UV_INDEX")), *_words(env.get("UV_EXTRA_INDEX_URL")))
        index_url = (
            env.get("UV_DEFAULT_INDEX")
            or env.get("UV_INDEX_URL")
            or pip.get("index-url")
            or DEFAULT_INDEX_URL
        )
        cert = common.cert_file or (Path(pip["cert"]) if "cert" in pip else None)
        return cls(
            index_url=None
            if pip.get("no-index", "").lower() in ("1", "true", "yes", "on")
            else index_url or DEFAULT_INDEX_URL,
            extra_index_urls=uv_extra or _words(pip.get("extra-index-url")),
            find_links=_words(env.get("UV_FIND_LINKS")) or _words(pip.get("find-links")),
            file_hosts=common.file_hosts,
            best_match=not uv_extra,
            cert_file=cert,
            proxies=common.proxies,
            torch_index_url=_torch_index(env, index_url),
        )

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes two settings resolve alike; holds secrets, so hash it before it is kept."""
        return (self.index_url or "", *self.extra_index_urls, "links", *self.find_links, str(self.best_match))

    def with_torch(self, variant: str | None) -> Self:
        """These settings with PyTorch's wheels for `variant` (cu126), for torch and its own alone."""
        if variant is None:
            return self
        assert self.torch_index_url is not None, "only what is offered is asked for"
        base = f"{self.torch_index_url.rstrip('/')}/{variant}"
        pages = tuple(f"{base}/{name}/" for name in TORCH_PACKAGES)
        return replace(self, find_links=(*self.find_links, *pages))

    def allowed_addresses(self) -> frozenset[Address]:
        """The hosts and ports that an installation may reach: the indexes' own and those of their files."""
        addresses = set(self.file_hosts)
        for url in self._urls():
            parts = urllib.parse.urlsplit(url)
            if parts.scheme in DEFAULT_PORTS and parts.hostname:
                addresses.add((parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]))
                addresses.update((host, 443) for host in KNOWN_FILE_HOSTS.get(parts.hostname, ()))
        return frozenset(addresses)

    def local_folders(self) -> tuple[Path, ...]:
        """Folders on this node that the installer must see; those that do not exist are left out.

        A mirror keeps its files in a folder beside `simple/`, so the one above is what must be seen.
        """
        folders = []
        for url in self._urls():
            folder = _local_folder(url)
            if folder is not None:
                folder = folder.parent if folder.name == "simple" else folder
                if folder.is_dir() and folder not in folders:
                    folders.append(folder)
        return tuple(folders)

    def upstream_for(self, host: str, scheme: str) -> Upstream | None:
        """The proxy to use towards `host`, honouring NO_PROXY; None to go there directly."""
        proxies = dict(self.proxies)
        if urllib.request.proxy_bypass_environment(host, proxies):  # type: ignore[attr-defined]
            return None
        url = proxies.get(scheme) or proxies.get("all")
        if not url:
            return None
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            return None
        return Upstream(parts.hostname, parts.port or 80, _basic_authorization(parts))

    def installer_variables(self) -> dict[str, str]:
        """The settings as uv's variables. They may hold a password: keep them off command lines."""
        variables = {"UV_INDEX_STRATEGY": "unsafe-best-match" if self.best_match else "first-index"}
        if self.index_url is not None:
            variables["UV_DEFAULT_INDEX"] = self.index_url
        present = [url for url in self.extra_index_urls if _is_present(url)]
        if present:
            variables["UV_INDEX"] = " ".join(present)
        links = [url for url in self.find_links if _is_present(url)]
        if links:
            variables["UV_FIND_LINKS"] = ",".join(links)
        return variables

    def installer_options(self) -> list[str]:
        """What uv takes as an option only."""
        return ["--no-index"] if self.index_url is None else []

    def _urls(self) -> tuple[str, ...]:
        return (*((self.index_url,) if self.index_url else ()), *self.extra_index_urls, *self.find_links)


@dataclass(frozen=True, slots=True)
class _Common:
    """Settings that are read alike whoever names the index."""

    file_hosts: tuple[Address, ...]
    cert_file: Path | None
    proxies: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Self:
        certs = (env.get(name) for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"))
        cert = next((Path(each) for each in certs if each), None)
        return cls(
            file_hosts=tuple(_address(word) for word in _words(env.get("PERAK_INDEX_FILE_HOSTS"))),
            cert_file=cert,
            proxies=tuple(sorted(_proxies(env).items())),
        )


def pip_config_files(env: Mapping[str, str]) -> list[Path]:
    """pip's configuration files, weakest first (pip, "Configuration Files")."""
    if env.get("PIP_CONFIG_FILE") == os.devnull:
        return []
    home = Path(env.get("HOME") or "~").expanduser()
    files = [
        *(Path(folder, "pip/pip.conf") for folder in (env.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")),
        Path("/etc/pip.conf"),
        home / ".pip/pip.conf",
        Path(env.get("XDG_CONFIG_HOME") or home / ".config", "pip/pip.conf"),
        Path(sys.prefix, "pip.conf"),
    ]
    return [*files, *((Path(own),) if (own := env.get("PIP_CONFIG_FILE")) else ())]


def _pip_options(files: Iterable[Path], env: Mapping[str, str]) -> dict[str, str]:
    """pip's options about indexes: of its files, `[install]` over `[global]`, then its variables."""
    options: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue  # pip says so to its user; for us an unreadable file configures nothing.
        for section in ("global", "install"):
            if parser.has_section(section):
                options.update(
                    (name.replace("_", "-"), value) for name, value in parser.items(section) if value
                )
    for name in ("index-url", "extra-index-url", "find-links", "no-index", "cert"):
        if value := env.get("PIP_" + name.replace("-", "_").upper()):
            options[name] = value
    return options


def _proxies(env: Mapping[str, str]) -> dict[str, str]:
    """Proxy variables by scheme, lower case first as is the custom; `no` holds NO_PROXY."""
    found = {}
    for scheme in ("http", "https", "all", "no"):
        if value := env.get(f"{scheme}_proxy") or env.get(f"{scheme.upper()}_PROXY"):
            found[scheme] = value
    return found


def _torch_index(env: Mapping[str, str], index_url: str | None) -> str | None:
    own = env.get("PERAK_TORCH_INDEX_URL")
    if own:
        return None if own == "off" else own
    return TORCH_INDEX_URL if index_url == DEFAULT_INDEX_URL else None


def _words(text: str | None) -> tuple[str, ...]:
    return tuple((text or "").replace(",", " ").split())


def _uv_indexes(text: str | None) -> tuple[str, ...]:
    """UV_INDEX allows `name=url`; the names mean nothing here."""
    return tuple(word.split("=", 1)[1] if "=" in word.split("://")[0] else word for word in _words(text))


def _address(word: str) -> Address:
    host, _, port = word.rpartition(":") if ":" in word else (word, "", "443")
    return host, int(port)


def _local_folder(url: str) -> Path | None:
    if url.startswith("file:"):
        return Path(urllib.request.url2pathname(urllib.parse.urlsplit(url).path))
    return Path(url) if url.startswith("/") else None


def _is_present(url: str) -> bool:
    """uv stops at an index folder that isn't there, pip passes over it: we do as pip does."""
    folder = _local_folder(url)
    return folder is None or folder.is_dir()


def _basic_authorization(parts: urllib.parse.SplitResult) -> str | None:
    if parts.username is None:
        return None
    import base64

    user = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(user.encode()).decode()
