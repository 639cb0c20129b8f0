/** Times in milliseconds. */
export interface MemberlistConfig {
  readonly streamTimeoutMs: number;
  readonly probeIntervalMs: number;
  readonly probeTimeoutMs: number;
  /** So many nodes are probed at once. */
  readonly probeTargets: number;
  readonly indirectChecks: number;
  readonly retransmitMult: number;
  /** What suspicions are measured in; memberlist takes its interval of probes. */
  readonly suspicionUnitMs: number;
  readonly suspicionMult: number;
  readonly suspicionMaxMult: number;
  readonly awarenessMax: number;
  readonly pushPullIntervalMs: number;
  readonly gossipIntervalMs: number;
  readonly gossipNodes: number;
  /** What is new here is told to so many nodes at once, before gossip carries it on. */
  readonly eagerNodes: number;
  /** Dead nodes are still told what is new for so long, and then forgotten. */
  readonly gossipToDeadMs: number;
  /** Largest packet before encryption's share is taken off: fits in an Ethernet frame. */
  readonly packetBytes: number;
  readonly leaveTimeoutMs: number;
  readonly maxStreams: number;
  readonly maxMembers: number;
  /** Lowest, highest and current version of memberlist's protocol, then of the delegate's. */
  readonly vsn: Uint8Array;
}

/** memberlist's LAN configuration as Docker's networkdb sets it. */
export const dockerConfig: MemberlistConfig = {
  streamTimeoutMs: 10_000,
  probeIntervalMs: 1_000,
  probeTimeoutMs: 500,
  probeTargets: 1,
  indirectChecks: 3,
  retransmitMult: 4,
  suspicionUnitMs: 1_000,
  suspicionMult: 4,
  suspicionMaxMult: 6,
  awarenessMax: 8,
  pushPullIntervalMs: 30_000,
  gossipIntervalMs: 200,
  gossipNodes: 3,
  eagerNodes: 0,
  gossipToDeadMs: 30_000,
  packetBytes: 1400,
  leaveTimeoutMs: 1_000,
  maxStreams: 128,
  maxMembers: 10_000,
  vsn: Uint8Array.of(1, 5, 2, 0, 0, 0),
};

/**
 * Ours: a node that is silent is suspected within one and a half seconds (Docker: up to three), as tasks of suspected
 * nodes get no new connections. It has as long as with Docker to clear itself: what is withdrawn comes back. What is
 * new is on its way at once, not with the next tick of gossip.
 */
export const skeinConfig: MemberlistConfig = {
  ...dockerConfig,
  probeIntervalMs: 700,
  probeTimeoutMs: 350,
  probeTargets: 3,
  eagerNodes: 128,
};

/** In large clusters full exchanges become rarer: above 32 nodes by one step per doubling. */
export function pushPullInterval(baseMs: number, nodes: number): number {
  if (nodes <= 32) return baseMs;
  return baseMs * (Math.ceil(Math.log2(nodes) - Math.log2(32)) + 1);
}
