# A NixOS module. In configuration.nix:
#
#   imports = [ ./portsentry/contrib/nixos/portsentry.nix ];
#   services.portsentry = { enable = true; settings.mode = "observe"; };
{ config, lib, pkgs, ... }:

let
  cfg = config.services.portsentry;
  source = ../..;
  settings = (pkgs.formats.yaml { }).generate "portsentry.yaml" cfg.settings;
in
{
  options.services.portsentry = {
    enable = lib.mkEnableOption "PortSentry, which blocks hosts that scan this host's ports";

    package = lib.mkOption {
      type = lib.types.package;
      description = "The package that has the programs and the unit.";
      default = pkgs.rustPlatform.buildRustPackage {
        pname = "portsentry";
        version = (lib.importTOML (source + "/Cargo.toml")).package.version;
        src = source;
        cargoLock.lockFile = source + "/Cargo.lock";
        # The tests need root, namespaces and nmap.
        doCheck = false;
        postInstall = ''
          install -D -t "$out/libexec/portsentry-nft" "$out/bin/portsentry-notify"
          rm "$out/bin/portsentry-notify"
          for page in man/*; do
            install -D -m 644 -t "$out/share/man/man''${page##*.}" "$page"
          done
          install -D -m 644 -t "$out/lib/systemd/system" contrib/systemd/portsentry.service
          substituteInPlace "$out/lib/systemd/system/portsentry.service" --replace-quiet /usr/sbin "$out/bin"
        '';
      };
    };

    settings = lib.mkOption {
      type = (pkgs.formats.yaml { }).type;
      default = { };
      description = "The keys of portsentry.yaml(5).";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    environment.etc."portsentry/portsentry.yaml".source = settings;
    boot.kernelModules = [ "nf_tables" "nfnetlink_log" ];
    systemd.packages = [ cfg.package ];
    systemd.services.portsentry = {
      wantedBy = [ "multi-user.target" ];
      reloadTriggers = [ settings ];
    };
  };
}
