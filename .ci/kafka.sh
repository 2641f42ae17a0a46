# Part of services.sh: a real Kafka broker from Maven's jars. DIR/kafka holds its settings, its log and its data.

kafka_libs=$root/target/ci/kafka-libs

# Fetches the jars unless they are those of the pom as it is now. The settings are copied beside them: a test that wants
# a broker of its own (on a full disk, say) needs to know this one directory.
kafka_jars() {
  local parts=$root/.ci/kafka
  if ! cmp -s "$parts/pom.xml" "$kafka_libs/pom.xml"; then
    require mvn java
    say "fetching the jars of Apache Kafka"
    # Beside the real place and moved there when whole: half a download must never pass for a broker.
    rm -rf "$kafka_libs" "$kafka_libs.part"
    mkdir -p "$kafka_libs.part"
    retry 3 mvn -B -q -ntp -Dstyle.color=never -f "$parts/pom.xml" dependency:copy-dependencies \
      -DincludeScope=runtime -DoutputDirectory="$kafka_libs.part" </dev/null >&2 || die "the jars could not be fetched"
    cp "$parts/pom.xml" "$kafka_libs.part/"
    mv "$kafka_libs.part" "$kafka_libs"
  fi
  cp "$parts/broker.properties" "$parts/log4j2.properties" "$kafka_libs/"
}

# Starts a broker for DIR and leaves its port in kafka_port.
kafka_up() {
  require java kcat ps
  local dir=$1/kafka controller java
  mkdir -p "$dir/tmp"
  free_port kafka_port
  free_port controller
  cat "$kafka_libs/broker.properties" - >"$dir/broker.properties" <<PROPERTIES

listeners=PLAINTEXT://127.0.0.1:$kafka_port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$kafka_port
controller.quorum.bootstrap.servers=127.0.0.1:$controller
log.dirs=$dir/data
PROPERTIES

  # Temporary files and the JVM's counters would otherwise stay behind in the machine's own temporary directory.
  java=(java -Xms512m -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:+ExitOnOutOfMemoryError -XX:-UsePerfData
    -Djava.awt.headless=true -Djava.io.tmpdir="$dir/tmp"
    -Dlog4j2.configurationFile="$kafka_libs/log4j2.properties" -cp "$kafka_libs/*")

  # The id names a cluster of this one node, it need not differ from anybody else's.
  "${java[@]}" kafka.tools.StorageTool format --standalone --cluster-id dXNoZXItY2kta2Fma2EtMQ \
    --config "$dir/broker.properties" >"$dir/format.log" 2>&1 || die_with "$dir/format.log" "Kafka's storage was refused"

  nohup "${java[@]}" kafka.Kafka "$dir/broker.properties" </dev/null >"$dir/broker.log" 2>&1 &
  echo $! >"$dir/pid"
  # The broker lists itself only once its controller has let it in; an open port alone says less.
  await 60 kill -0 $! -- kafka_answers "$kafka_port" || die_with "$dir/broker.log" "Kafka did not start"
}

kafka_answers() { kcat -b "127.0.0.1:$1" -L -m 2 2>/dev/null | grep -q '^ 1 brokers'; }

# By the command line too: a process id in a file that outlived its process may be anybody's by now.
kafka_running() {
  local pid
  pid=$(cat "$1/kafka/pid" 2>/dev/null) || return 1
  [[ $(ps -ww -o args= -p "$pid" 2>/dev/null) == *"kafka.Kafka $1/kafka/broker.properties" ]]
}

kafka_down() {
  local pid
  kafka_running "$1" || return 0
  pid=$(cat "$1/kafka/pid")
  kill -TERM "$pid" 2>/dev/null || true
  await 30 true -- kafka_gone "$1" || kill -KILL "$pid" 2>/dev/null || true
  await 5 true -- kafka_gone "$1" || die "Kafka, process $pid, cannot be stopped"
}

kafka_gone() { ! kafka_running "$1"; }
