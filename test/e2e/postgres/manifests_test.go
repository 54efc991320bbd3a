package postgres

// manifest is a database on a claim of its own, and a Pod that inserts one row after the other, and appends to DIR/rows each
// that the database acknowledged. It reaches the database without the cluster's DNS, which ends with flyball. Files that an
// fsGroup may write are no database for PostgreSQL, so only the volume itself is given to it.
const manifest = `
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {selector: {app: NAME}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: NAME}
spec:
  serviceName: NAME
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      securityContext: {runAsUser: 999, runAsGroup: 999, fsGroup: 999, fsGroupChangePolicy: OnRootMismatch}
      containers:
      - name: postgres
        image: IMAGE
        command:
        - sh
        - -ec
        - |
          if ! test -e /data/ready; then
            rm -rf /data/pg
            initdb --pgdata /data/pg --auth trust --username postgres --locale C --encoding UTF8
            echo 'host postgres all 0.0.0.0/0 trust' >> /data/pg/pg_hba.conf
            sync && touch /data/ready
          fi
          exec postgres -D /data/pg -c 'listen_addresses=*' -c unix_socket_directories=/tmp
        readinessProbe: {exec: {command: [pg_isready, -h, /tmp]}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 512Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: NAME-writer}
spec:
  containers:
  - name: writer
    image: IMAGE
    env: [{name: PGCONNECT_TIMEOUT, value: "2"}]
    command:
    - sh
    - -c
    - |
      HOST=$(printenv "$(echo NAME | tr a-z A-Z)_SERVICE_HOST")
      row() { timeout 10 psql --host "$HOST" --username postgres --quiet --command "$1"; }
      until row 'CREATE TABLE IF NOT EXISTS rows (id text PRIMARY KEY)'; do sleep 0.2; done
      while :; do
        id=NAME-$((i += 1))
        if row "INSERT INTO rows VALUES ('$id')"; then echo "$id" >> /acknowledged/rows; else sleep 0.2; fi
      done
    volumeMounts: [{name: acknowledged, mountPath: /acknowledged}]
  volumes: [{name: acknowledged, hostPath: {path: DIR}}]
`

const snapshot = `
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: first}
spec: {source: {persistentVolumeClaimName: data-first-0}}
`

// restoredClaim is the claim that the second database finds: one of that name is not made anew.
const restoredClaim = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data-second-0}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 512Mi}}
  dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: first}
`
