#!/usr/bin/env bash
# Puts the model's API key into a cluster, as the Secret that the services read through Dapr. Run it again to change the
# key. The key is asked for, or read from standard input or from MODEL_API_KEY; never an argument, which any user of the
# machine could read and the shell would remember.
set -euo pipefail

usage() {
  cat <<END
usage: create-model-key.sh [-n NAMESPACE] [--name SECRET] [--key KEY]

  -n, --namespace  where the release is            (default: \$NAMESPACE, else daca)
  --name           the Secret's name               (default: gemini-api-key; model.existingSecret.name)
  --key            the key in the Secret           (default: gemini-api-key; model.existingSecret.key)

The API key itself: typed when asked, or MODEL_API_KEY=... in the environment, or on standard input:
  create-model-key.sh < key.txt
END
}

fail() {
  echo "create-model-key.sh: $1" >&2
  exit 1
}

namespace=${NAMESPACE:-daca}
name=gemini-api-key
key=gemini-api-key
while (($#)); do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    -n | --namespace | --name | --key)
      (($# > 1)) || fail "$1 needs a value"
      case $1 in
        --name) name=$2 ;;
        --key) key=$2 ;;
        *) namespace=$2 ;;
      esac
      shift 2
      ;;
    *) fail "unknown argument; an API key is never one (--help says how to give it)" ;;
  esac
done

command -v kubectl >/dev/null || fail "kubectl is not in PATH: install it, or put the one of this project there"

if [[ -n ${MODEL_API_KEY:-} ]]; then
  api_key=$MODEL_API_KEY
elif [[ -t 0 ]]; then
  read -rsp "API key (not shown): " api_key
  echo >&2
else
  api_key=$(cat)
fi
unset MODEL_API_KEY # no child needs it

# What editors and copying leave around a key: a byte order mark, white space, the line ends of Windows. The services
# leave it out as well.
export LC_ALL=C
api_key=${api_key#$'\xef\xbb\xbf'}
api_key=${api_key#"${api_key%%[![:space:]]*}"}
api_key=${api_key%"${api_key##*[![:space:]]}"}
[[ -n $api_key ]] || fail "the API key is empty: type it, or give it in MODEL_API_KEY or on standard input"
[[ $api_key != *[[:space:]]* ]] || fail "the API key contains white space: give the key alone, on one line"
[[ $api_key =~ ^[[:graph:]]+$ ]] || fail "the API key contains characters that are not ASCII, such as a dash or quotes that an editor made longer or rounder: copy it again"

kubectl get namespace "$namespace" >/dev/null ||
  fail "namespace $namespace can't be read: check \`kubectl config current-context\`, or make it with \`kubectl create namespace $namespace\`"

# printf is part of the shell, so the key is in no argument list; and a server-side apply writes no copy of it into an
# annotation.
printf '%s' "$api_key" |
  kubectl create secret generic "$name" --namespace "$namespace" --from-file="$key=/dev/stdin" --dry-run=client -o yaml |
  kubectl apply --server-side --force-conflicts --field-manager=create-model-key -f - ||
  fail "the cluster refused the Secret (see above)"

cat <<END
The services read it when they are next asked, unless they already had a key. To replace a key they use:
  kubectl rollout restart deployment -n $namespace chat-service agent-memory-service
END
