#!/bin/sh
# Makes sure of what is needed before anything can be compiled: cargo, a C compiler, make, and the certificates with which
# cargo fetches sources. Everything else is looked after by `seckill doctor`, once that exists. Says nothing when all is
# there. As root on a Debian it installs what is missing; otherwise it prints the exact command and ends with exit code 20.
set -eu

cd "$(dirname "$0")/.."

not_provisioned=20

has() { command -v "$1" >/dev/null 2>&1; }

say() { printf 'bootstrap: %s\n' "$*" >&2; }

# rustup's folder is often missing from the PATH of cron, CI and `sudo`.
cargo_bin="${CARGO_HOME:-${HOME:-/root}/.cargo}/bin"
case ":$PATH:" in
*":$cargo_bin:"*) ;;
*) PATH="$cargo_bin:$PATH" ;;
esac

# Any one of these satisfies cargo and rustup; on other systems than Linux the certificates are the system's own affair.
has_certificates() {
    [ "$(uname -s)" = Linux ] || return 0
    for bundle in "${SSL_CERT_FILE:-}" "${CARGO_HTTP_CAINFO:-}" /etc/ssl/certs/ca-certificates.crt \
        /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
        if [ -n "$bundle" ] && [ -s "$bundle" ]; then return 0; fi
    done
    return 1
}

# A compiler without the C library's headers and start files is as good as none, so one program is linked.
can_link() {
    has cc || return 1
    scratch=$(mktemp -d) || return 1
    printf '#include <stdlib.h>\nint main(void) { return EXIT_SUCCESS; }\n' >"$scratch/probe.c"
    linked=0
    cc -o "$scratch/probe" "$scratch/probe.c" >/dev/null 2>&1 || linked=1
    rm -rf "$scratch"
    return "$linked"
}

# The names of the missing packages, in the words of the package manager that is here. Arguments of the script are programs
# that are wanted too, and packages by the same name.
wanted_too=$*
missing_packages() {
    for program in $wanted_too; do
        has "$program" || printf ' %s' "$program"
    done
    if has apt-get; then
        can_link || printf ' gcc libc6-dev'
        has make || printf ' make'
    elif has apk; then
        can_link || printf ' gcc musl-dev'
        has make || printf ' make'
    else
        can_link || printf ' gcc'
        has make || printf ' make'
    fi
    has_certificates || printf ' ca-certificates'
}

# The command that installs the packages, as root would type it.
install_command() {
    if has apt-get; then
        printf 'apt-get update && apt-get install -y --no-install-recommends%s' "$1"
    elif has dnf; then
        printf 'dnf install -y%s' "$1"
    elif has apk; then
        printf 'apk add%s' "$1"
    elif has zypper; then
        printf 'zypper --non-interactive install%s' "$1"
    elif has pacman; then
        printf 'pacman -S --noconfirm%s' "$1"
    elif [ "$(uname -s)" = Darwin ]; then
        printf 'xcode-select --install'
    else
        printf 'install with the package manager of this system:%s' "$1"
    fi
}

# The same command as the present user must type it.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        printf '%s' "$1"
    elif has sudo; then
        printf 'sudo %s' "$1" | sed 's/ && / \&\& sudo /g'
    else
        printf "su -c '%s'" "$1"
    fi
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    say "installing$1"
    # Another apt may be at work, as on a machine that has just been started: it is waited for. Old lists name files
    # that the mirror has dropped, so they are renewed first. Standard output is left to the programs that come after.
    apt-get -q -o DPkg::Lock::Timeout=300 update >&2 || return 1
    # The packages are separate words on purpose.
    # shellcheck disable=SC2086
    apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --no-install-recommends $1 >&2
}

ensure_packages() {
    packages=$(missing_packages)
    [ -n "$packages" ] || return 0
    if [ "$(id -u)" -eq 0 ] && has apt-get; then
        apt_install "$packages" || say "apt-get could not install them; its own message is above"
        packages=$(missing_packages)
        [ -n "$packages" ] || return 0
    fi
    if [ -n "$wanted_too" ]; then
        say "missing:$packages"
    else
        say "missing, and needed to compile anything:$packages"
    fi
    say "to get them, run:"
    printf '    %s\n' "$(as_root "$(install_command "$packages")")" >&2
    exit "$not_provisioned"
}

# True when version $1 is at least $2, comparing major and minor as numbers.
at_least() {
    major=${1%%.*} rest=${1#*.} minor=${rest%%.*}
    wanted_major=${2%%.*} wanted_rest=${2#*.} wanted_minor=${wanted_rest%%.*}
    [ "$major" -gt "$wanted_major" ] || { [ "$major" -eq "$wanted_major" ] && [ "$minor" -ge "$wanted_minor" ]; }
}

ensure_rust() {
    wanted=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' Cargo.toml | head -n 1)
    rustup_install="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile default"
    if ! has cargo || ! has rustc; then
        say "cargo is neither on the PATH nor in $cargo_bin; this project needs Rust $wanted or newer"
        if [ -n "${SUDO_USER:-}" ]; then
            say "(sudo hides the Rust of $SUDO_USER: run make without sudo, or set CARGO_HOME and RUSTUP_HOME)"
        fi
        say "to get it, run:"
        has curl || rustup_install="$(as_root "$(install_command ' curl')") && $rustup_install"
        printf '    %s\n' "$rustup_install" >&2
        exit "$not_provisioned"
    fi
    # rustup's own message, such as "no default toolchain is configured", is the best explanation there is.
    if ! answer=$(rustc --version); then
        say "rustc does not run; its own message is above. To get a toolchain, run:"
        printf '    %s\n' "rustup default stable" >&2
        exit "$not_provisioned"
    fi
    version=${answer#rustc }
    version=${version%% *}
    if ! at_least "${version%%-*}" "$wanted"; then
        say "rustc is version $version ($(command -v rustc)), and this project needs $wanted or newer; run:"
        if has rustup; then
            printf '    %s\n' "rustup update stable && rustup default stable" >&2
        else
            printf '    %s\n' "$rustup_install" >&2
        fi
        exit "$not_provisioned"
    fi
}

ensure_packages
ensure_rust
