# How an image is made of what is on this machine, for where no registry can be reached. Sourced by the scripts beside it;
# `root` is the folder that becomes the image's file system.

# Ends with code 77, which stands for "skipped", where no container engine answers.
needs_an_engine() {
    if ! docker version >/dev/null 2>&1; then
        printf 'SKIPPED: no container engine answers (docker version)\n' >&2
        exit 77
    fi
}

# Folders below usr, with links beside it, as Debian has it: the loader's path is part of every program.
skeleton() {
    mkdir -p "$root/usr/bin" "$root/usr/lib" "$root/usr/lib64" "$root/etc" "$root/tmp"
    for link in bin lib lib64; do ln -s "usr/$link" "$root/$link"; done
    chmod 1777 "$root/tmp"
    cp /etc/os-release "$root/etc/"
    cp "$(readlink -f "$(command -v sh)")" "$root/usr/bin/sh"
}

# Copies files to where they are here, what is behind links included.
with_path() {
    for file in "$@"; do
        mkdir -p "$root$(dirname "$file")"
        cp -L "$file" "$root$file"
    done
}

# Copies the libraries that these programs and libraries are linked with.
libraries_of() {
    for file in "$@"; do ldd "$file" | grep -o '/[^ ]*'; done | sort -u | while read -r library; do
        with_path "$library"
    done
}

# Makes the image of the folder: its name, a folder in it that belongs to user 999 (`-` for none), and the arguments of
# `docker import`. Everything else belongs to root, whoever makes it.
import_as() {
    name=$1 data=$2
    shift 2
    archive() { tar -C "$root" --numeric-owner "$@"; }
    archive --owner=0 --group=0 --exclude="./$data" -cf "$root/.tar" --exclude=./.tar .
    [ "$data" = - ] || archive --owner=999 --group=999 -rf "$root/.tar" "./$data"
    docker import "$@" "$root/.tar" "$name"
}
