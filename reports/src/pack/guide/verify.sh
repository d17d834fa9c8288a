#!/bin/sh
# Checks this evidence pack with sha256sum (or shasum) and openssl.
#   sh verify/verify.sh [ANCHOR.pem]
# ANCHOR.pem: the certificate of the instance, received by another way than this pack.
# Exit: 0 verified, 5 a check failed, or nothing says who signed.
set -u

anchor=${1:-}
case $anchor in
'' | /*) ;;
*) anchor=$PWD/$anchor ;;
esac
cd "$(dirname "$0")/.." || exit 4

failed=0
bad() {
  printf 'FAILED  %s\n' "$*"
  failed=1
}
good() { printf 'ok      %s\n' "$*"; }

if command -v sha256sum >/dev/null 2>&1; then
  sums() { LC_ALL=C sha256sum -c "$1" 2>&1; }
else
  sums() { LC_ALL=C shasum -a 256 -c "$1" 2>&1; }
fi

for manifest in tagmanifest-sha256.txt manifest-sha256.txt; do
  if report=$(sums "$manifest"); then
    good "every file in $manifest has its digest"
  else
    bad "$manifest:"
    printf '%s\n' "$report" | grep -v ': OK$'
  fi
done

listed=$(mktemp) && found=$(mktemp) || exit 4
trap 'rm -f "$listed" "$found"' EXIT
{
  cut -c67- manifest-sha256.txt tagmanifest-sha256.txt
  printf '%s\n' tagmanifest-sha256.txt verify/tagmanifest-sha256.txt.sigstore.json verify/pack.intoto.sigstore.json \
    verify/tagmanifest-sha256.txt.sig verify/keys/pack-signing.pub verify/keys/pack-signing.pem verify/seal-consistency.json
} | LC_ALL=C sort >"$listed"
find . ! -type d | sed 's|^\./||' | LC_ALL=C sort >"$found"
added=$(LC_ALL=C comm -13 "$listed" "$found")
if [ -z "$added" ]; then
  good "no file was added"
else
  bad "files that no manifest lists:"
  printf '%s\n' "$added"
fi

if openssl dgst -sha256 -verify verify/keys/pack-signing.pub -signature verify/tagmanifest-sha256.txt.sig \
  tagmanifest-sha256.txt >/dev/null 2>&1; then
  good "tagmanifest-sha256.txt is signed by verify/keys/pack-signing.pub"
else
  bad "the signature over tagmanifest-sha256.txt"
fi
if [ "$(openssl x509 -in verify/keys/pack-signing.pem -noout -pubkey 2>/dev/null)" = "$(cat verify/keys/pack-signing.pub)" ]; then
  good "that key is the one in the pack's certificate"
else
  bad "verify/keys/pack-signing.pub is not the key of verify/keys/pack-signing.pem"
fi
if openssl verify -no_check_time -CAfile "${anchor:-verify/keys/ca.pem}" verify/keys/pack-signing.pem >/dev/null 2>&1; then
  good "the pack's certificate is by ${anchor:-the certificate inside the pack}"
else
  bad "the pack's certificate is not by ${anchor:-the certificate inside the pack}"
fi

[ "$failed" = 0 ] || exit 5
if [ -z "$anchor" ]; then
  echo "Internally consistent, signer NOT established: give the instance's certificate as argument."
  exit 5
fi
echo "Verified. Records and proofs are checked by: pipeproof evidence verify"
