//! Follows `docs/operating/migrate.md` to the letter: its commands are taken out of the page and run, each in a machine of
//! its own, which is a folder here, under load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use blackbox::{Cluster, binary, errors_in, run};

use crate::auth::{jwt, make_users_and_enable, users_at};
use crate::load::Load;
use crate::swap::pause;
use crate::users::ROOT_PASSWORD;
use crate::{check_errors, go, others, ours, path_text, say};

const PAGE: &str = include_str!("../../docs/operating/migrate.md");

/// The commands of the page that are marked so, in their order.
fn commands(mark: &str) -> String {
    let mut found = String::new();
    let mut indent = None;
    for line in PAGE.lines() {
        let text = line.trim_start();
        match indent {
            None if text == format!("```sh {mark}") => indent = Some(line.len() - text.len()),
            None => {}
            Some(_) if text == "```" => indent = None,
            Some(indent) => found += &format!("{}\n", line.get(indent..).unwrap_or_default()),
        }
    }
    assert!(!found.is_empty(), "the page has no commands marked {mark}");
    found
}

/// A machine, as its root folder.
struct Machine {
    root: PathBuf,
    name: String,
    peer_url: String,
    endpoints: String,
    /// Those of the other members.
    others: String,
    /// As whom commands are run: a user and a password.
    user: Option<String>,
}

/// What systemd would do for a service of the type `notify`: it is started when it says that it is ready.
const SYSTEMD: &str = r#"
systemctl() {
  case "$1" in
    start)
      ( set -a; . /etc/etcd/etcd.env; set +a; exec /usr/local/bin/etcd ) >> /var/log/etcd 2>&1 &
      echo $! > /run/etcd.pid
      until grep -q 'ready to serve client requests' /var/log/etcd; do
        kill -0 "$(cat /run/etcd.pid)"
        sleep 0.1
      done ;;
    stop)
      kill "$(cat /run/etcd.pid)" 2> /dev/null || true
      tail --pid="$(cat /run/etcd.pid)" -f /dev/null
      mv /var/log/etcd "/var/log/etcd.$(ls /var/log | wc -l)" ;;
  esac
}
"#;

impl Machine {
    /// Runs commands as root of this machine; fails with the first that fails.
    fn run(&self, commands: &str) {
        let script = format!("{SYSTEMD}\n{}\n{commands}", self::commands("define"));
        let mut script = script;
        for folder in ["/usr/local/bin", "/opt/", "/etc/etcd", "/var/", "/run/"] {
            script = script.replace(folder, &format!("{}{folder}", path_text(&self.root)));
        }
        let mut shell = Command::new("sh");
        shell.args(["-euc", &script]).env_clear();
        shell.envs([("PATH", "/usr/bin:/bin"), ("NAME", &self.name), ("PEER_URL", &self.peer_url)]);
        shell.envs([("ETCDCTL_ENDPOINTS", &self.endpoints), ("OTHERS", &self.others)]);
        shell.envs(self.user.iter().map(|user| ("ETCDCTL_USER", user)));
        let output = shell.output().expect("sh runs");
        assert!(
            output.status.success(),
            "on {}: {commands}\n{}{}\n{}",
            self.name,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            self.log(),
        );
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root.join("var/log/etcd")).unwrap_or_default()
    }

    /// All that was logged.
    fn logs(&self) -> String {
        let files = fs::read_dir(self.root.join("var/log")).expect("a folder");
        files.map(|file| fs::read_to_string(file.expect("a file").path()).expect("a log")).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(pid) = fs::read_to_string(self.root.join("run/etcd.pid")) {
            // It may have ended.
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

/// Installs Go's etcd on a machine, as the page expects it.
fn install(root: &Path, cluster: &Cluster, place: usize) -> Machine {
    let member = &cluster.members[place];
    for folder in ["usr/local/bin", "opt/quorate", "etc/etcd", "var/lib", "var/log", "var/backups", "run"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    fs::copy(go(), root.join("usr/local/bin/etcd")).expect("a copy");
    for name in ["etcd", "etcdctl", "etcdutl"] {
        fs::copy(binary(name), root.join("opt/quorate").join(name)).expect("a copy");
    }
    let mut settings = format!("ETCD_DATA_DIR={}\n", path_text(&root.join("var/lib/etcd")));
    let mut args = member.command();
    args.args(["--snapshot-count", "500", "--snapshot-catchup-entries", "200"]);
    let mut args = args.get_args().map(|arg| arg.to_str().expect("text"));
    while let (Some(flag), Some(value)) = (args.next(), args.next()) {
        if flag != "--data-dir" {
            let name = flag.trim_start_matches('-').replace('-', "_").to_uppercase();
            settings += &format!("ETCD_{name}={value}\n");
        }
    }
    fs::write(root.join("etc/etcd/etcd.env"), settings).expect("the settings");
    let endpoints: Vec<String> = cluster.members.iter().map(|member| member.endpoint()).collect();
    let others: Vec<String> =
        others(cluster, &[place]).into_iter().map(|place| endpoints[place].clone()).collect();
    Machine {
        root: root.to_owned(),
        name: member.name().to_owned(),
        peer_url: member.peer_endpoint(),
        endpoints: endpoints.join(","),
        others: others.join(","),
        user: None,
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    fs::read(one).expect("a file") == fs::read(other).expect("a file")
}

#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn the_page_is_followed() {
    follow(Cluster::new(3, &[]), false);
}

#[test]
#[ignore = "needs a real etcd: cargo xtask mixed"]
fn the_page_is_followed_with_auth_on() {
    let folder = tempfile::tempdir().expect("a folder");
    // The load knows no password: its token shall outlive the members that are stopped.
    let tokens = jwt(folder.path());
    follow(Cluster::new(3, &["--auth-token", &tokens, "--bcrypt-cost", "4"]), true);
}

/// The cluster is never started: it has the names and the ports.
fn follow(mut cluster: Cluster, with_users: bool) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = |place: usize| folder.path().join(place.to_string());
    let mut machines: Vec<Machine> = (0..3).map(|place| install(&root(place), &cluster, place)).collect();
    std::thread::scope(|scope| {
        for machine in &machines {
            scope.spawn(|| machine.run("systemctl start etcd"));
        }
    });
    machines.iter().for_each(|machine| machine.run(&commands("machine")));
    if with_users {
        run(make_users_and_enable(&mut cluster));
        machines.iter_mut().for_each(|machine| machine.user = Some(format!("root:{ROOT_PASSWORD}")));
    }
    run(async {
        let load = Load::start(&cluster, true);
        load.go_on(pause()).await;
        machines[0].run(&commands("once"));
        for (mark, program) in [("in", ours()), ("back", go()), ("replace", ours()), ("back", go())] {
            for (place, machine) in machines.iter().enumerate() {
                machine.run(&commands(mark));
                let installed = machine.root.join("usr/local/bin/etcd");
                assert!(same_file(&installed, &program), "the program of {}", machine.name);
                if with_users {
                    users_at(&cluster, place).await;
                }
                load.go_on(pause()).await;
            }
            say(format!("the commands marked \"{mark}\", on each machine"));
        }
        load.check(&cluster).await;
    });
    for machine in &machines {
        check_errors(&machine.name, errors_in(&machine.logs()), &[]);
    }
}
