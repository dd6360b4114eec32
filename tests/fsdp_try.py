import torch, momos
from torch import nn
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6,5), nn.ReLU(), nn.Linear(5,7), nn.ReLU(), nn.Linear(7,3))
def train(rank, sharded, kw, steps=4, mixed=False):
    from torch.distributed.fsdp import fully_shard
    m = net()
    cfg = momos.MosaicConfig.learned(num_motifs=8, block_size=2, rate_weight=0.2)
    momos.parametrize_(m, cfg, learn="weights", **kw)
    if sharded:
        for i in (0,2,4): fully_shard(m[i])
        fully_shard(m)
    sched = momos.Reassign(m, total_steps=steps)
    opt = torch.optim.SGD(m.parameters(), 0.125)
    x = torch.randn(8,6, generator=torch.Generator().manual_seed(1)).mul(4).round().div(4)
    outs=[]
    for _ in range(steps):
        y = m(x); outs.append(y.detach().clone()); y.square().mean().backward(); opt.step(); opt.zero_grad(); r=sched.step()
    b = m.momos
    return outs, b.motifs.clone(), b.step.clone(), b.usage(), r.changed
