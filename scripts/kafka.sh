#!/usr/bin/env bash
# One Kafka broker (KRaft). `scripts/brokers.sh` starts its own with this, and so do tests that kill and freeze theirs.
#
#   scripts/kafka.sh fetch             fetch what it takes to run one, once
#   scripts/kafka.sh run DIR [ARG…]    become the broker that DIR/settings describes
#
# DIR/settings has what differs from broker to broker: node.id, listeners and the like. Data is in DIR/data: what is
# there is kept, and what is not is made, for which ARGs are passed on, such as --add-scram. Brokers of one cluster
# have to be given the same KAFKA_CLUSTER_ID. KAFKA_HEAP is how much memory it gets, 256m without it.
set -euo pipefail
version=4.1.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mainspring/brokers/kafka-$version

fetch() {
    command -v java >/dev/null || "$(dirname "$0")/install.sh" default-jre-headless
    [ ! -f "$cache/complete" ] || return 0
    command -v mvn >/dev/null || "$(dirname "$0")/install.sh" maven
    mkdir -p "$cache"
    cat >"$cache/pom.xml" <<POM
<project>
  <modelVersion>4.0.0</modelVersion><groupId>local</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
    echo "kafka: fetching version $version (once)"
    mvn -q -B -f "$cache/pom.xml" dependency:copy-dependencies -DoutputDirectory="$cache/lib"
    touch "$cache/complete"
}

run() {
    local dir=$1 id=${KAFKA_CLUSTER_ID:-}
    shift
    # Of two lines for one setting the later counts, so that settings may differ from these, too.
    cat - "$dir/settings" >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
controller.listener.names=CONTROLLER
log.dirs=$dir/data
group.initial.rebalance.delay.ms=0
PROPERTIES
    if [ ! -f "$dir/data/meta.properties" ]; then
        [ -n "$id" ] || id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'Az' | head -c 22)
        java -cp "$cache/lib/*" kafka.tools.StorageTool format -t "$id" -c "$dir/server.properties" "$@"
    fi
    exec java "-Xmx${KAFKA_HEAP:-256m}" -XX:TieredStopAtLevel=1 -cp "$cache/lib/*" kafka.Kafka "$dir/server.properties"
}

case ${1:-} in
    fetch) fetch ;;
    run) run "${@:2}" ;;
    *) echo 'usage: scripts/kafka.sh fetch, or run DIR [ARG…]' >&2; exit 1 ;;
esac
